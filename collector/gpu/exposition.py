"""Serves the last readings on `/metrics`: exact values, and nothing for what was not said."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from catalog.family import Family, Kind, families
from catalog.gpu import GpuReading, gpu_readings, xid_family, xids
from collector.gpu.readings import Reading


class GpuExposition(Collector):
    """A `prometheus_client` collector of the readings last shown to it.

    A GPU that is not among them any more is not served any more, so that no gauge keeps its last value.
    """

    def __init__(self) -> None:
        self._readings: tuple[Reading, ...] = ()

    def show(self, readings: Iterable[Reading]) -> None:
        """Replaces what is served."""
        self._readings = tuple(readings)

    def describe(self) -> list[Metric]:
        """Names are not fixed at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families that have a value, in the catalog's order."""
        readings = self._readings
        by_family: dict[str, list[GpuReading]] = {}
        for entry in gpu_readings():
            if entry.family:
                by_family.setdefault(entry.family, []).append(entry)
        for name, entries in by_family.items():
            yield from _metric(families()[name], _samples(entries, readings))
        yield from _metric(families()[xid_family()], _xid_samples(readings))


Sample = tuple[Mapping[str, str], float]


def _samples(entries: Sequence[GpuReading], readings: Iterable[Reading]) -> Iterator[Sample]:
    for reading in readings:
        labels = _labels(reading)
        for entry in entries:
            value = getattr(reading, entry.name)
            if value is None:
                continue
            if entry.spread:
                yield from (({**labels, entry.spread: key}, float(one)) for key, one in value.items())
            else:
                yield {**labels, **entry.labels}, float(value)


def _xid_samples(readings: Iterable[Reading]) -> Iterator[Sample]:
    """Every listed code from 0 on: `increase()` misses the first event of a series that begins with it."""
    for reading in readings:
        if reading.xids is not None:
            for code, xid in xids().items():
                yield {**_labels(reading), "xid": code, "cause": xid.cause}, float(reading.xids.get(code, 0))


def _labels(reading: Reading) -> dict[str, str]:
    return {"gpu": reading.gpu, "node": reading.node, "gpu_model": reading.gpu_model}


def _metric(family: Family, samples: Iterable[Sample]) -> Iterator[Metric]:
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name.removesuffix("_total"), family.help, labels=family.labels)
    for labels, value in samples:
        metric.add_metric([labels[name] for name in family.labels], value)
    if metric.samples:
        yield metric
