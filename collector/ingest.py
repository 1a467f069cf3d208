"""One scrape's text into what is served, what is stored, and what is known of the target; without HTTP."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import pyarrow as pa

from catalog.instruments import Instruments
from collector.engine_mapping import UNKNOWN, EngineMapper, PlanCache
from collector.engine_state import EngineStates, Record, table_of
from collector.exposition.model import MalformedExposition, TooManyNewSeries, TooManySeries
from collector.exposition.parser import ExpositionParser, ParserLimits
from collector.exposition.skeleton import SkeletonPool
from collector.mapped import Mapped
from collector.served import Served
from collector.settings import ScrapeSettings
from collector.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScrapeResult:
    """What became of one scrape; `error` is for people, `reason` for the metric, both empty if it went well."""

    target: Target
    at: float
    reason: str = ""
    error: str = ""
    samples: int = 0
    body_bytes: int = 0
    mapped: Mapped | None = None
    records: Sequence[Record] = ()  # rows of `engine_state`

    @property
    def ok(self) -> bool:
        """Whether the target answered with an exposition, of a known engine or not."""
        return not self.reason

    @property
    def rows(self) -> pa.Table | None:
        """The rows of `engine_state` as a table; None of a failed scrape."""
        return table_of(self.records) if self.ok else None


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """What is known of a target: for `GET /api/v1/targets` and `tidegauge targets`.  Times are Unix seconds."""

    name: str
    url: str
    labels: Mapping[str, str]
    source: str = ""  # where it was found
    engine: str = UNKNOWN
    models: tuple[str, ...] = ()
    up: bool | None = None  # None before the first scrape
    last_scrape: float | None = None
    last_success: float | None = None
    last_error: str = ""
    last_reason: str = ""
    last_duration_s: float | None = None
    samples: int = 0
    series: int = 0  # of ours
    mapped_families: tuple[str, ...] = ()
    unmapped_reason: str = ""  # why no family, or not every one, is served of it
    failures_in_a_row: int = 0


@dataclass(slots=True)
class _Known:
    parser: ExpositionParser
    mapper: EngineMapper
    status: TargetStatus
    new_series: "_Allowance"
    info: tuple[str, ...] | None = None  # labels of tidegauge_target_info as served now


@dataclass(slots=True)
class _Allowance:
    """How many series a target may bring that it did not have: as many an hour as it may have at once.

    So labels with an id in them cost a bounded time of parsing, and a restart under other labels passes.
    """

    most: float
    left: float
    at: float

    def now(self, at: float) -> int:
        """What is left of it."""
        self.left = min(self.most, self.left + max(0.0, at - self.at) * self.most / 3600)
        self.at = at
        return int(self.left)


class ScrapeIngest:
    """Takes scrapes as they come, from the scraper or from a recording, through the same path.

    Scrapes of different targets may come from different threads; those of one target come one after another.
    """

    def __init__(
        self, settings: ScrapeSettings, served: Served, engine_states: EngineStates, metrics: Instruments
    ) -> None:
        self._limits = ParserLimits(max_series=settings.max_series, max_label_value=settings.max_label_value)
        self._served = served
        self._states = engine_states
        self._metrics = metrics
        self._skeletons = SkeletonPool()
        self._plans = PlanCache()
        self._known: dict[str, _Known] = {}
        self._lock = Lock()
        # For a recorder: target, time, text (None of a failed scrape) and error of each scrape.
        self.on_scrape: Callable[[Target, float, str | None, str], None] | None = None

    def ingest(self, target: Target, text: str, at: float, *, openmetrics: bool | None = None) -> ScrapeResult:
        """Serves what the text says, and gives the rows to store; a text that cannot be read is a failed scrape.

        `at` is the time of the scrape.  `openmetrics` is what the content type says, None if it says nothing.
        """
        known = self._of(target)
        if self.on_scrape is not None:
            self.on_scrape(target, at, text, "")
        try:
            allowed = known.new_series.now(at) if known.parser.remembered else None
            scrape = known.parser.parse(text, openmetrics=openmetrics, max_new=allowed)
        except MalformedExposition as error:
            return self.failed(target, "malformed", f"targets: {target.name}: malformed exposition: {error}", at)
        except (TooManySeries, TooManyNewSeries) as error:
            return self.failed(target, "too_many_series", f"targets: {target.name}: {error}", at)
        if allowed is not None:
            known.new_series.left -= scrape.new
        mapped = known.mapper.map(scrape, at)
        self._served.put(mapped)
        records = self._states.rows(mapped)
        result = ScrapeResult(target, at, "", "", len(scrape.values), len(text), mapped, records)
        self._succeeded(known, result, mapped)
        return result

    def failed(self, target: Target, reason: str, error: str, at: float) -> ScrapeResult:
        """Counts a failed scrape; the last good one is served until it is stale."""
        known = self._of(target)
        status = known.status
        if status.last_reason != reason:  # once per kind of failure, not once per round
            log.warning("scrape_failed", extra={"target": target.name, "reason": reason, "error": error})
        known.status = replace(
            status,
            up=False,
            last_scrape=at,
            last_error=error,
            last_reason=reason,
            failures_in_a_row=status.failures_in_a_row + 1,
        )
        self._metrics.counters.tidegauge_scrape_failures_total.labels(target=target.name, reason=reason).inc()
        self._show_up(known, target, status.engine)
        return ScrapeResult(target, at, reason, error)

    def took(self, target: Target, seconds: float) -> None:
        """Notes how long the last scrape took, good or bad."""
        known = self._of(target)
        known.status = replace(known.status, last_duration_s=seconds)
        self._metrics.gauges.tidegauge_scrape_duration_seconds.labels(target=target.name).set(seconds)

    def expect(self, target: Target) -> None:
        """Lists the target in `statuses` before its first scrape."""
        self._of(target)

    def forget(self, target: Target) -> None:
        """Nothing of the target is served, listed or remembered any more."""
        with self._lock:
            known = self._known.pop(target.name, None)
        self._served.forget(target.name)
        self._states.forget(target.name)
        if known is None:
            return
        self._hide(known, target)
        gauges = self._metrics.gauges
        for gauge in (
            gauges.tidegauge_scrape_samples,
            gauges.tidegauge_scrape_body_bytes,
            gauges.tidegauge_scrape_duration_seconds,
            gauges.tidegauge_scrape_last_success_timestamp_seconds,
        ):
            gauge.remove_by_labels({"target": target.name})
        self._metrics.counters.tidegauge_scrape_failures_total.remove_by_labels({"target": target.name})

    def statuses(self) -> list[TargetStatus]:
        """What is known of every target, by name."""
        with self._lock:
            return [self._known[name].status for name in sorted(self._known)]

    def _of(self, target: Target) -> _Known:
        with self._lock:
            known = self._known.get(target.name)
            if known is None or (known.status.url, known.status.labels) != (target.shown_url, target.labels):
                status = TargetStatus(target.name, target.shown_url, target.labels, target.source)
                parser = ExpositionParser(self._limits, self._skeletons)
                most = float(self._limits.max_series)
                fresh = _Known(parser, EngineMapper(target, self._plans), status, _Allowance(most, most, 0.0))
                if known is not None:
                    self._hide(known, target)
                self._known[target.name] = known = fresh
            return known

    def _succeeded(self, known: _Known, result: ScrapeResult, mapped: Mapped) -> None:
        target, plan = result.target, mapped.plan
        if known.status.last_reason:
            log.info("scrape_recovered", extra={"target": target.name})
        known.status = replace(
            known.status,
            engine=plan.engine,
            models=plan.models,
            up=True,
            last_scrape=result.at,
            last_success=result.at,
            last_error="",
            last_reason="",
            samples=result.samples,
            series=len(plan.series),
            mapped_families=plan.families(),
            unmapped_reason=f"targets: {target.name} {plan.reason}" if plan.reason else "",
            failures_in_a_row=0,
        )
        gauges = self._metrics.gauges
        gauges.tidegauge_scrape_samples.labels(target=target.name).set(result.samples)
        gauges.tidegauge_scrape_body_bytes.labels(target=target.name).set(result.body_bytes)
        gauges.tidegauge_scrape_last_success_timestamp_seconds.labels(target=target.name).set(result.at)
        self._show_up(known, target, plan.engine)

    def _show_up(self, known: _Known, target: Target, engine: str) -> None:
        """`up` and `info` under the engine that the target turned out to be, and under no other."""
        labels = target.labels
        info = (target.name, engine, labels.get("environment", ""), labels.get("instance", ""), target.shown_url)
        if known.info != info:
            self._hide(known, target)
            known.info = info
            self._metrics.gauges.tidegauge_target_info.labels(*info).set(1)
        self._metrics.gauges.tidegauge_target_up.labels(target=target.name, engine=engine).set(
            int(bool(known.status.up))
        )

    def _hide(self, known: _Known, target: Target) -> None:
        if known.info is not None:
            self._metrics.gauges.tidegauge_target_info.remove(*known.info)
            self._metrics.gauges.tidegauge_target_up.remove(target.name, known.info[1])
            known.info = None
