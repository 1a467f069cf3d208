"""New values: each is compared with its predecessor, at growing numbers of rows, from its first request on."""

from collections import deque
from collections.abc import Callable, MutableMapping

import numpy as np
import pyarrow as pa

from evals.drift.budget import Budget, suspected_look
from evals.drift.comparison import Comparison, evidence, minimum_effect
from evals.drift.frame import Frame, slice_label
from evals.drift.looks import against_predecessor, look, next_look
from evals.drift.registry import Key, Registry, Value, slice_values, stream_values
from evals.drift.settings import MONTH, DriftSettings, SignalSettings
from evals.drift.state import Against, Period, Phase, Round, State
from evals.drift.statistics import Ints

Fetch = Callable[[SignalSettings, float, float], pa.Table]
States = MutableMapping[tuple[str, str, str], State]
Rows = list[tuple[State, Period]]

# A value has gone when this is the probability of not having seen it since by chance.
GONE = 1e-3
# A last look needs so many times the rows of the one before.
LAST_LOOK = 1.2
GONE_REASON = "no longer served"


class Follower:
    """Follows new values until they are established, confirmed as a drift, or gone."""

    def __init__(self, settings: DriftSettings, budget: Budget, fetch: Fetch) -> None:
        self._settings = settings
        self._budget = budget
        self._fetch = fetch
        self._opened: deque[float] = deque()
        self._observed: dict[str, float] = {}
        self._references: dict[tuple[str, str, str], pa.Table] = {}

    def unobserved(self, signal: SignalSettings, frame: Frame, this: Round) -> Ints:
        """Rows that the registry has not been given yet."""
        start = self._observed.get(signal.name, this.reference.start)
        self._observed[signal.name] = this.window.end
        return frame.between(start, this.window.end)

    def step(
        self, signal: SignalSettings, frame: Frame, registry: Registry, states: States, this: Round,
        rng: np.random.Generator,
    ) -> Rows:  # fmt: skip
        """Looks that are due, and the state of what was found before."""
        rows: Rows = []
        due = [item for item in registry.followed() if self._is_due(frame, *item)]
        for key, name, value in due[: self._settings.maximum_followed]:
            looked = self._look(signal, key, name, value, registry, states, this, rng)
            if looked is not None:
                rows.append((looked, Period(value.first, this.window.end)))
        fresh = {id(state) for state, _ in rows}
        for state in [state for state in states.values() if _is_of(state, signal) and state.active]:
            if self._end_if_gone(state, frame, registry) or id(state) not in fresh:
                rows = [row for row in rows if row[0] is not state]
                rows.append((state, self._track(state, signal, frame, this, rng)))
        self._settle(registry, this)
        return rows

    def _is_due(self, frame: Frame, key: Key, name: str, value: Value) -> bool:
        """Whether there are rows enough for the next look, or for a last one at a value that has gone."""
        if value.count >= max(value.next_look, self._settings.minimum_samples):
            return True
        enough = value.count >= max(self._settings.minimum_samples, LAST_LOOK * value.looked)
        return enough and self._gone_since(frame, key, name) is not None

    def restore(self, state: State, signal: SignalSettings, registry: Registry, history: float) -> None:
        """Goes on with a series of looks after a restart; the first round reads rows from `history` on."""
        assert state.since is not None
        notes = state.notes
        self._opened.append(float(notes["opened"]))
        key: Key = (notes["dimension"], tuple(notes["stream"].items()))
        if notes.get("reason") == GONE_REASON and state.ended is not None:
            registry.retire(key, notes["value"], state.ended)
            return
        value = Value(state.since, state.since, 0, 0, known=notes["settled"], looks=int(notes["look"]))
        value.series, value.looked = int(notes["series"]), int(notes["rows"])
        value.next_look = next_look(int(notes["rows"]), self._settings.minimum_samples)
        if not value.known and state.since < history:
            frame = Frame(self._fetch(signal, state.since, history), signal)
            value.count = len(frame.matching(state.values))
        registry.adopt(key, notes["value"], value)

    def _look(
        self, signal: SignalSettings, key: Key, name: str, value: Value, registry: Registry, states: States,
        this: Round, rng: np.random.Generator,
    ) -> State | None:  # fmt: skip
        if value.looks == 0 and registry.streams[key].was_there(value):
            value.known = True
            return None
        value.next_look = next_look(value.count, self._settings.minimum_samples)
        table = self._fetch(signal, value.first - self._settings.reference, this.window.end)
        seen = look(table, signal, key, name, value, self._settings, rng)
        if seen is None:
            return None
        value.looks, value.looked = value.looks + 1, value.count
        if value.looks == 1:
            value.series = self._open(this.at)
        state = self._state(signal, key, name, value, seen.previous, states, this)
        self._judge(state, seen.result, value, signal, this)
        states[state.key] = state
        self._explain(state, signal, key, name, value, seen.previous, table, states, this, rng)
        return state

    def _open(self, at: float) -> int:
        while self._opened and self._opened[0] <= at - MONTH:
            self._opened.popleft()
        self._opened.append(at)
        return len(self._opened)

    def _state(
        self, signal: SignalSettings, key: Key, name: str, value: Value, previous: str, states: States, this: Round
    ) -> State:
        values = slice_values(key, name)
        fresh = State(signal.name, values, slice_label(values), Against.PREDECESSOR, since=value.first)
        old = states.get(fresh.key)
        state = old if old is not None and old.since == value.first else fresh
        state.reference = Period(value.first - self._settings.reference, value.first)
        state.notes |= {
            "dimension": key[0],
            "stream": stream_values(key),
            "value": name,
            "predecessor": previous,
            "reference": f"{key[0]} {previous} in the {_words(self._settings.reference)} before",
            "series": value.series,
            "look": value.looks,
            "rows": value.count,
            "opened": state.notes.get("opened", this.at),
        }
        return state

    def _judge(self, state: State, result: Comparison, value: Value, signal: SignalSettings, this: Round) -> None:
        level = self._budget.look_level(value.series, value.looks)
        state.take(result, level)
        state.evidence = evidence(result)
        state.notes["looks"] = [*state.notes.get("looks", []), {
            "n": result.n_current, "p_value": result.p_value, "log_e_value": result.log_e_value, "threshold": level,
            "false_pages_per_30_days_needed": self._budget.pages_needed(result.p_value, level),
        }]  # fmt: skip
        state.notes["false_pages_per_30_days"] = self._budget.pages
        if result.matters() and result.p_value < level:
            state.raise_to(Phase.CONFIRMED)
            value.known = True
        elif result.matters() and result.p_value < suspected_look(value.looks):
            state.raise_to(Phase.SUSPECTED)
        elif state.phase is Phase.SUSPECTED and result.p_value > 0.05:
            state.resolve(this.window.end, "not borne out by more rows")
        state.notes["settled"] = value.known

    def _explain(
        self, state: State, signal: SignalSettings, key: Key, name: str, value: Value, previous: str, table: pa.Table,
        states: States, this: Round, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Of a value found everywhere and in one tenant one stands: everywhere, if it moved without the tenant."""
        if not state.active or "tenant" not in stream_values(key):
            return
        wide_values = {name: text for name, text in state.values.items() if name != "tenant"}
        wide = states.get((signal.name, slice_label(wide_values), str(Against.PREDECESSOR)))
        if wide is None or not wide.active:
            return
        frame = Frame(table, signal)
        inside = np.zeros(len(frame), dtype=bool)
        inside[frame.matching({"tenant": state.values["tenant"]})] = True
        rest = Frame(frame.table.filter(pa.array(~inside)), signal)
        wide_key: Key = (key[0], tuple(item for item in key[1] if item[0] != "tenant"))
        result = against_predecessor(rest, wide_key, name, previous, value.first, value.first, self._settings, rng)
        if result is not None and result.matters() and result.p_value < 0.05:
            state.resolve(this.window.end, f"explained by {wide.slice}")
            state.peak = Phase.NONE
        else:
            wide.resolve(this.window.end, f"explained by {state.slice}")
            wide.peak = Phase.NONE

    def _end_if_gone(self, state: State, frame: Frame, registry: Registry) -> bool:
        """Resolves a finding whose value is no longer served."""
        key, name = _named(state)
        gone = self._gone_since(frame, key, name)
        if gone is None:
            return False
        state.resolve(gone, GONE_REASON)
        self._references.pop(state.key, None)
        registry.retire(key, name, gone)
        return True

    def _track(
        self, state: State, signal: SignalSettings, frame: Frame, this: Round, rng: np.random.Generator
    ) -> Period:
        """Brings the effect up to date, and resolves what is calm; the period that the row is about."""
        assert state.since is not None
        period = Period(max(state.since, this.reference.start), this.window.end)
        if not state.active:
            return period
        key, name = _named(state)
        previous = state.notes["predecessor"]
        before = self._reference(state, signal, key, previous)
        whole = Frame(pa.concat_tables([before, _plain(frame, period.start)]), signal)
        result = against_predecessor(whole, key, name, previous, state.since, period.start, self._settings, rng)
        recent = against_predecessor(whole, key, name, previous, state.since, this.window.start, self._settings, rng)
        if result is not None:
            state.take(result, state.row["q_threshold"])
            state.evidence = evidence(result)
        self._calm(state, recent, this)
        return period

    def _calm(self, state: State, recent: Comparison | None, this: Round) -> None:
        if recent is None:
            return
        state.calm = state.calm + 1 if abs(recent.effect.size) < minimum_effect(recent.pair.frame) else 0
        if state.calm >= self._settings.calm_rounds:
            state.resolve(this.window.end, "back to the predecessor's")
            self._references.pop(state.key, None)

    def _reference(self, state: State, signal: SignalSettings, key: Key, previous: str) -> pa.Table:
        """The predecessor's rows before; they stay as they were while the finding lasts."""
        if state.key not in self._references:
            assert state.reference is not None
            frame = Frame(self._fetch(signal, state.reference.start, state.reference.end), signal)
            self._references[state.key] = frame.table.take(pa.array(frame.matching(slice_values(key, previous))))
        return self._references[state.key]

    def _gone_since(self, frame: Frame, key: Key, name: str) -> float | None:
        """When the value's last request was, if its stream goes on without it."""
        stream, own = frame.matching(stream_values(key)), frame.matching(slice_values(key, name))
        if len(own) == 0:
            return float(frame.time[0]) if len(frame) else None
        share = len(own) / int(((stream >= own[0]) & (stream <= own[-1])).sum())
        missing = (1.0 - min(share, 0.5)) ** int((stream > own[-1]).sum())
        return float(frame.time[own[-1]]) if missing < GONE else None

    def _settle(self, registry: Registry, this: Round) -> None:
        for _, _, value in registry.followed():
            value.known = this.window.end - value.first > self._settings.follow


def _is_of(state: State, signal: SignalSettings) -> bool:
    return state.signal == signal.name and state.against is Against.PREDECESSOR


def _named(state: State) -> tuple[Key, str]:
    return (state.notes["dimension"], tuple(state.notes["stream"].items())), state.notes["value"]


def _plain(frame: Frame, start: float) -> pa.Table:
    return frame.table.slice(int(np.searchsorted(frame.time, start, side="left")))


def _words(seconds: float) -> str:
    return f"{seconds / 60:g} minutes"
