"""The series that OTLP brought, within bounds, for as long as they come."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from catalog.clock import Clock
from catalog.family import Kind, families
from catalog.instruments import Instruments
from collector.exposition.model import Labels
from collector.otlp.metrics.points import DroppedPointError
from collector.otlp.metrics.series import Point, Series
from collector.otlp.settings import OtlpMetricsSettings

REASONS: Mapping[str, str] = {
    "malformed": "it has no name or no value, or bounds and counts that do not belong together",
    "too_old": "its time is absent or too long ago",
    "in_the_future": "its time is in the future",
    "out_of_order": "a later point of its series was here before, or another sender has the same name",
    "overlap": "its delta begins before the last one of its series ended",
    "temporality": "its temporality is not said, or it is the delta of a sum that may fall",
    "type_conflict": "its metric has another type elsewhere",
    "name_conflict": "another metric is served under one of its names",
    "too_many_labels": "it has more attributes than otlp.metrics.max_labels",
    "too_many_buckets": "it has more buckets than otlp.metrics.max_buckets",
    "too_many_series": "otlp.metrics.max_series are served, or max_series_per_service of its service",
}
# What we say of requests and engines is ours alone; a client's own of the same name is served beside it.
PREFIX = "otlp_"
OWN_PREFIX = "tidegauge_"
INFO = "target_info"
# A reader asks for what is served now; in between it is enough to look now and then.
SWEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Source:
    """Whose series they are; `info` are the other attributes of its resource."""

    tenant: str
    job: str
    instance: str
    info: Labels = ()


@dataclass(frozen=True, slots=True)
class Described:
    """A metric in Prometheus' words; `kind` is counter, gauge, histogram or summary."""

    name: str
    kind: str
    unit: str
    help: str


@dataclass(slots=True)
class MetricFamily:
    """A metric as served, under a name that may have been prefixed."""

    name: str
    kind: str
    unit: str
    help: str
    series: dict[Labels, Series] = field(default_factory=dict)
    services: dict[Labels, tuple[str, str]] = field(default_factory=dict)  # whom each series counts for


def names_of(name: str, kind: str) -> tuple[str, ...]:
    """The names that a family takes in the exposition, its own among them."""
    if kind == "counter":
        return name, name.removesuffix("_total"), name.removesuffix("_total") + "_created"
    if kind in ("histogram", "summary"):
        return (name, *(name + suffix for suffix in ("_bucket", "_sum", "_count", "_created")))
    return (name,)


class OtlpSeries:
    """Holds the series; safe to use from several threads."""

    def __init__(self, settings: OtlpMetricsSettings, clock: Clock, metrics: Instruments) -> None:
        self.settings = settings
        self._clock = clock
        self._gauge = metrics.gauges.tidegauge_otlp_series
        self._lock = threading.Lock()
        self._families: dict[str, MetricFamily] = {}
        self._names: dict[str, str] = {}  # exposed name: family
        self._infos: dict[Source, float] = {}  # when last seen
        self._of_service: Counter[tuple[str, str]] = Counter()
        self._total = 0
        self._swept = clock.now()

    def put(self, source: Source, metric: Described, labels: Labels, point: Point) -> None:
        """Serves a point.  Raises DroppedPointError."""
        now = self._clock.now()
        with self._lock:
            self._sweep(now)
            family = self._family(metric)
            series = family.series.get(labels) or self._new(family, source, labels)
            try:
                series.take(point, now)
            except DroppedPointError:
                # Its sender is alive, whatever it repeats.
                series.seen = now
                raise
            self._note(source, now)

    def forget(self, metric: Described, labels: Labels) -> None:
        """Serves a series no more: its sender says that it has no value now."""
        with self._lock:
            family = self._families.get(served_name(metric.name, metric.kind))
            if family is not None and labels in family.series:
                self._remove(family, labels)

    def current(self) -> tuple[list[tuple[MetricFamily, list[Series]]], list[Source]]:
        """What is served now, by name: families with their series, and the sources that say more of themselves."""
        with self._lock:
            self._sweep(self._clock.now(), at_once=True)
            found = [(family, list(family.series.values())) for _, family in sorted(self._families.items())]
            infos = {(source.tenant, source.job, source.instance): source for source in self._infos if source.info}
            return found, [source for _, source in sorted(infos.items())]

    def _note(self, source: Source, now: float) -> None:
        """The newest source of a job and instance comes last, and counts."""
        self._infos.pop(source, None)
        self._infos[source] = now
        if len(self._infos) > self.settings.max_targets:
            del self._infos[next(iter(self._infos))]

    def _family(self, metric: Described) -> MetricFamily:
        name = served_name(metric.name, metric.kind)
        family = self._families.get(name)
        if family is not None:
            if (family.kind, family.unit) != (metric.kind, metric.unit):
                raise DroppedPointError("type_conflict")
            return family
        if name == INFO or any(exposed in self._names for exposed in names_of(name, metric.kind)):
            raise DroppedPointError("name_conflict")
        return MetricFamily(name, metric.kind, metric.unit, metric.help)

    def _new(self, family: MetricFamily, source: Source, labels: Labels) -> Series:
        service = (source.tenant, source.job)
        settings = self.settings
        if self._total >= settings.max_series or self._of_service[service] >= settings.max_series_per_service:
            raise DroppedPointError("too_many_series")
        self._families[family.name] = family
        self._names.update(dict.fromkeys(names_of(family.name, family.kind), family.name))
        family.series[labels] = made = Series(labels)
        family.services[labels] = service
        self._of_service[service] += 1
        self._total += 1
        self._gauge.set(self._total)
        return made

    def _remove(self, family: MetricFamily, labels: Labels) -> None:
        del family.series[labels]
        service = family.services.pop(labels)
        self._of_service[service] -= 1
        self._total -= 1
        if not self._of_service[service]:
            del self._of_service[service]
        if not family.series:
            del self._families[family.name]
            for exposed in names_of(family.name, family.kind):
                del self._names[exposed]
        self._gauge.set(self._total)

    def _sweep(self, now: float, *, at_once: bool = False) -> None:
        """Forgets what has not come for a while, so that no gauge keeps a value that nobody vouches for."""
        if not at_once and now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        oldest = now - self.settings.stale_seconds
        for family in list(self._families.values()):
            for labels in [labels for labels, series in family.series.items() if series.seen < oldest]:
                self._remove(family, labels)
        self._infos = {source: seen for source, seen in self._infos.items() if seen >= oldest}


def served_name(name: str, kind: str) -> str:
    """The name, prefixed if the catalog has it, in whatever form."""
    if name.startswith(OWN_PREFIX) or any(exposed in _catalog() for exposed in names_of(name, kind)):
        return PREFIX + name
    return name


@cache
def _catalog() -> frozenset[str]:
    kinds = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram"}
    return frozenset(
        name for family in families().values() for name in names_of(family.name, kinds.get(family.kind, "gauge"))
    )
