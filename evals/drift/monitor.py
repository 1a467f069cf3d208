"""The loop that looks for drift: one round a minute, from stored requests and scores to stored results."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from opentelemetry import trace

from catalog.clock import Clock
from catalog.instruments import Instruments
from evals.drift.budget import budget_of
from evals.drift.follow import Follower
from evals.drift.frame import Frame, dimensions_of, slice_label
from evals.drift.registry import Key, Registry, stream_values
from evals.drift.settings import MONTH, DriftSettings, SignalSettings
from evals.drift.state import Against, Period, Phase, Round, State, moment, restored, table_of
from evals.drift.trailing import Tested, found, slices_tested
from evals.drift.watch import Watch
from store.batch import Batch, Committed
from store.tables import DEPLOYMENTS

log = logging.getLogger(__name__)
TRACER = trace.get_tracer("tidegauge.evals.drift")

# A loop that is behind by more rounds than this skips to the present.
MOST_BEHIND = 60
# Deployments that were seen in the traffic, not told.
OBSERVED = "observed"
# Resolved findings stay in `current` for so long.
KEPT = 86400.0


class Reading(Protocol):
    """What a monitor reads; `store.reads.Reads` has it."""

    def signal_values(self, column: str, dimensions: Sequence[str], start: float, end: float) -> pa.Table: ...

    def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]: ...


class Writing(Protocol):
    """What a monitor writes to; `store.writer.Writer` has it."""

    def submit(self, batch: Batch) -> "Future[Committed]": ...


@dataclass(frozen=True)
class RoundReport:
    """What a round did: comparisons made and left out for want of samples, rows that came too late for theirs,
    and the states that changed."""

    at: float
    window: Period
    tested: int = 0
    too_few: int = 0
    late: int = 0
    changed: Sequence[State] = field(default_factory=list)


class DriftMonitor:
    """Tests every configured signal once a round.

    Guarantee: without a change the expected number of confirmed findings in 30 days is at most
    `settings.false_pages_per_30_days` (budget.py says how, docs/drift.md under what assumptions).

    Rounds are at `origin + k * round`.  What a round finds depends on `at` and on what is stored, not on when it runs;
    after a restart it goes on from the stored results.
    """

    def __init__(
        self,
        settings: DriftSettings,
        reads: Reading,
        writer: Writing,
        clock: Clock,
        metrics: Instruments,
        rng: np.random.Generator,
        origin: float = 0.0,
    ) -> None:
        self._settings = settings
        self._reads = reads
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._origin = origin
        self._seed = int(rng.integers(2**62))
        self._budget = budget_of(settings)
        self._states: dict[tuple[str, str, str], State] = {}
        self._last: dict[tuple[str, str, str], State] = {}
        self._registries = {signal.name: Registry(signal) for signal in settings.signals}
        self._seen: dict[str, tuple[float, np.ndarray[Any, np.dtype[np.float64]]]] = {}
        self._deployed: set[tuple[Key, str]] = set()
        self._follower = Follower(settings, self._budget, self._fetch)
        self._watch = Watch(settings, self._fetch)
        self._started = False

    def current(self) -> list[State]:
        """The state of each signal and slice: findings first, then what the last round tested."""
        findings = sorted(self._states.values(), key=lambda state: (not state.active, -(state.since or 0.0)))
        return findings + [state for key, state in self._last.items() if key not in self._states]

    async def run(self) -> None:
        """Rounds for ever; a round that fails is counted, and the next one comes."""
        number = int((self._clock.now() - self._origin) // self._settings.round) + 1
        while True:
            at = self._origin + number * self._settings.round
            await self._clock.sleep(at - self._clock.now())
            try:
                await self.step(at)
            except Exception as error:  # an unattended loop outlives what nobody expected
                self._metrics.counters.tidegauge_drift_rounds_total.labels(outcome="error").inc()
                log.warning("drift round failed", extra={"error": repr(error)})
            behind = int((self._clock.now() - at) // self._settings.round)
            number += 1 if behind <= MOST_BEHIND else behind

    async def step(self, at: float) -> RoundReport:
        """One round: the windows that end `lag` before `at`.

        Raises what reading raises, and StoreOverloaded or StoreUnavailable.
        """
        started = perf_counter()
        if not self._started:
            await asyncio.to_thread(self._restore, at)
            self._started = True
        with TRACER.start_as_current_span("drift round") as span:
            report, batch = await asyncio.to_thread(self._round, at)
            span.set_attribute("tidegauge.tests", report.tested)
        if batch.rows():
            await asyncio.wrap_future(self._writer.submit(batch))
        self._metrics.counters.tidegauge_drift_rounds_total.labels(outcome="ok").inc()
        self._metrics.histograms.tidegauge_drift_round_duration_seconds.observe(perf_counter() - started)
        return report

    # --- a round ----------------------------------------------------------------------------------------------------

    def _round(self, at: float) -> tuple[RoundReport, Batch]:
        this = self._plan(at)
        before = {key: state.phase for key, state in self._states.items()}
        tested: list[Tested] = []
        rows: list[tuple[State, Period]] = []
        deployed: list[dict[str, Any]] = []
        late = small = 0
        for number, signal in enumerate(self._settings.signals):
            rng = np.random.default_rng([self._seed, this.number, number])
            table = self._fetch(signal, this.reference.start, this.window.end)
            frame = Frame(table, signal)
            late += self._late(signal, frame, this)
            deployed += self._observe(signal, frame, this)
            rows += self._follower.step(signal, frame, self._registries[signal.name], self._states, this, rng)
            rows += self._watch.step(signal, frame, self._states, this, rng)
            rest = self._watch.unexplained(frame, signal)
            signal_tested, signal_small = slices_tested(rest, self._settings, this, rng)
            tested += signal_tested
            small += signal_small
            self._count(signal, len(signal_tested), signal_small)
        rows += self._trailing(tested, this)
        self._forget(at)
        self._watch.forget(this.reference.start)
        changed = [state for key, state in self._states.items() if before.get(key, Phase.NONE) is not state.phase]
        tables = {"drift_results": table_of(rows, this)} if rows else {}
        if deployed:
            tables["deployments"] = pa.Table.from_pylist(deployed, schema=DEPLOYMENTS)
        return RoundReport(at, this.window, len(tested), small, late, changed), Batch(tables)

    def _plan(self, at: float) -> Round:
        end = at - self._settings.lag
        start = end - self._settings.window
        number = round((at - self._origin) / self._settings.round)
        return Round(at, number, Period(start, end), Period(start - self._settings.reference, start))

    def _trailing(self, tested: list[Tested], this: Round) -> list[tuple[State, Period]]:
        rng = np.random.default_rng([self._seed, this.number, len(self._settings.signals)])
        standing = {id(each.tested): each for each in found(tested, self._budget, self._settings, this.window, rng)}
        self._last = {key: state for key, state in self._last.items() if state.against is Against.PREDECESSOR}
        states = []
        for each in tested:
            frame = each.result.pair.frame
            state = self._state(frame.signal.name, each.part.values)
            state = self._watch.judge(state, each, standing.get(id(each)), self._budget, this)
            self._last[state.key] = state
            if state.phase is not Phase.NONE:
                self._states[state.key] = state
            states.append(state)
        quiet = {state.key for state in states}
        states += self._watch.unseen(self._states, quiet, this)
        return [(state, this.window) for state in states]

    def _state(self, signal: str, values: Mapping[str, str]) -> State:
        fresh = State(signal, values, slice_label(values), Against.TRAILING)
        old = self._states.get(fresh.key)
        return old if old is not None and old.phase is not Phase.RESOLVED else fresh

    def _late(self, signal: SignalSettings, frame: Frame, this: Round) -> int:
        """Rows that are there now and were not when their window was read first."""
        last, times = self._seen.get(signal.name, (this.reference.start, np.zeros(0)))
        start = this.reference.start
        late = int(((frame.time >= start) & (frame.time < last)).sum() - (times >= start).sum())
        self._seen[signal.name] = (this.window.end, frame.time)
        late = max(late, 0)
        self._metrics.counters.tidegauge_drift_late_rows_total.labels(signal=signal.name).inc(late)
        return late

    def _observe(self, signal: SignalSettings, frame: Frame, this: Round) -> list[dict[str, Any]]:
        registry = self._registries[signal.name]
        fresh = registry.observe(frame, self._follower.unobserved(signal, frame, this), self._settings.window)
        rows = []
        for key, name in fresh:
            if (key, name) not in self._deployed:
                self._deployed.add((key, name))
                rows.append(_deployment(key, name, registry))
        return rows

    def _count(self, signal: SignalSettings, tested: int, small: int) -> None:
        counter = self._metrics.counters.tidegauge_drift_tests_total
        counter.labels(signal=signal.name, outcome="tested").inc(tested)
        counter.labels(signal=signal.name, outcome="too_few").inc(small)

    def _forget(self, at: float) -> None:
        for key, state in list(self._states.items()):
            if state.phase is Phase.RESOLVED and (state.ended or at) < at - KEPT:
                del self._states[key]

    # --- storage ----------------------------------------------------------------------------------------------------

    def _fetch(self, signal: SignalSettings, start: float, end: float) -> pa.Table:
        return self._reads.signal_values(signal.column, dimensions_of(signal), start, end)

    def _restore(self, at: float) -> None:
        """Goes on from what is stored: findings, series of looks, and the values that were seen before."""
        signals = {signal.name: signal for signal in self._settings.signals}
        history = self._plan(at).reference.start
        for row in self._reads.query("drift_memory", since=moment(at - MONTH), before=moment(at)):
            state = restored(row)
            if state.signal not in signals:
                continue
            if state.against is Against.PREDECESSOR:
                self._follower.restore(state, signals[state.signal], self._registries[state.signal], history)
            if state.phase is not Phase.NONE:
                self._states[state.key] = state
                self._watch.restore(state)
        self._forget(at)
        self._restore_values(history)

    def _restore_values(self, history: float) -> None:
        """Values seen before the rows that the first round reads anyway; the others show themselves again."""
        entries = [
            (_key_of(row), str(row["value"]), row["time"].timestamp())
            for row in self._reads.query("deployments")
            if row["source"] == OBSERVED
        ]
        self._deployed |= {(key, name) for key, name, _ in entries}
        for registry in self._registries.values():
            registry.know([entry for entry in entries if entry[2] < history])


def _deployment(key: Key, name: str, registry: Registry) -> dict[str, Any]:
    stream, values = registry.streams[key], stream_values(key)
    value = stream.values[name]
    earlier = [(other.last, label) for label, other in stream.values.items() if other.first < value.first]
    return {
        "time": moment(value.first),
        "service": values.get("service"),
        "dimension": key[0],
        "value": name,
        "previous": max(earlier)[1] if earlier else None,
        "tenant": values.get("tenant"),
        "source": OBSERVED,
        "stream": json.dumps(values),
    }


def _key_of(row: Mapping[str, Any]) -> Key:
    return str(row["dimension"]), tuple((str(name), str(value)) for name, value in row["stream"].items())
