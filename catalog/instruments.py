"""Turns declared families into `prometheus_client` instruments.

A metric's name is written once, in `catalog/families/`; code reaches it as an attribute:

>>> from prometheus_client import CollectorRegistry
>>> metrics = Instruments(CollectorRegistry())
>>> metrics.counters.tidegauge_ingest_spans_total.labels(status="stored").inc(3)
"""

from collections.abc import Callable, Iterable
from itertools import product
from threading import Lock
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from catalog.family import Family, Kind, families

M = TypeVar("M", bound=MetricWrapperBase)


class Namespace(Generic[M]):
    """Instruments of one kind, made on first use; an undeclared name raises AttributeError."""

    def __init__(self, kind: Kind, make: Callable[[Family], M]) -> None:
        self._kind = kind
        self._make = make
        self._made: dict[str, M] = {}
        self._lock = Lock()

    def __getattr__(self, name: str) -> M:
        with self._lock:
            if name not in self._made:
                family = families().get(name)
                if family is None or family.kind is not self._kind:
                    raise AttributeError(f"no {self._kind} {name!r} is declared in catalog/families")
                self._made[name] = self._make(family)
            return self._made[name]


class _Ledger(Collector):
    """Families whose sums agree in every scrape: what moves several of them holds `lock`, and so does a reader."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lock = Lock()

    def describe(self) -> Iterable[Metric]:
        """Names are not fixed at registration."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All of the ledger's families as they stood at one moment."""
        with self.lock:
            return list(self.registry.collect())


class Instruments:
    """The declared families as live instruments in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._ledgers: dict[str, _Ledger] = {}
        self._lock = Lock()
        self.counters: Namespace[Counter] = Namespace(Kind.COUNTER, self._counter)
        self.gauges: Namespace[Gauge] = Namespace(Kind.GAUGE, self._gauge)
        self.histograms: Namespace[Histogram] = Namespace(Kind.HISTOGRAM, self._histogram)

    def start_at_zero(self) -> None:
        """Makes the series of counters whose label values are all known: `increase()` misses a counter's birth."""
        for family in families().values():
            if family.kind is Kind.COUNTER and family.values and set(family.values) == set(family.labels):
                counter = getattr(self.counters, family.name)
                for values in product(*(family.values[label] for label in family.labels)):
                    counter.labels(*values)

    def ledger(self, name: str) -> Lock:
        """The lock to hold while families of that ledger are moved together."""
        return self._ledger(name).lock

    def _ledger(self, name: str) -> _Ledger:
        with self._lock:
            if name not in self._ledgers:
                self._ledgers[name] = _Ledger()
                self.registry.register(self._ledgers[name])
            return self._ledgers[name]

    def _home(self, family: Family) -> CollectorRegistry:
        return self._ledger(family.ledger).registry if family.ledger else self.registry

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name.removesuffix("_total"), family.help, family.labels, registry=self._home(family))

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.help, family.labels, registry=self._home(family))

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(family.name, family.help, family.labels, buckets=family.buckets, registry=self._home(family))
