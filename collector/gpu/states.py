"""The metrics about the collection itself: whether it works, for which GPU, and for which value."""

from collections.abc import Iterable

from prometheus_client import Gauge

from catalog.instruments import Instruments
from collector.gpu.readings import Reading

Labels = tuple[str, ...]


class _OneOf:
    """A gauge whose last label says why: each key has one series, which moves when the reason changes."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._reasons: dict[Labels, str] = {}

    def set(self, reasons: dict[Labels, str]) -> None:
        """1 for an empty reason, else 0; keys that are not among them are not served any more."""
        for key, reason in reasons.items():
            if self._reasons.get(key) != reason:
                self._gauge.labels(*key, reason).set(0 if reason else 1)
        for key, old in self._reasons.items():
            if reasons.get(key) != old:
                self._gauge.remove(*key, old)
        self._reasons = reasons


class GpuStates:
    """What works and what does not, each with its reason."""

    def __init__(self, metrics: Instruments) -> None:
        self.reason = "starting"
        self._collector = _OneOf(metrics.gauges.tidegauge_gpu_collector_up)
        self._devices = _OneOf(metrics.gauges.tidegauge_gpu_device_up)
        # Its labels stand in the order gpu, field, reason.
        self._fields = _OneOf(metrics.gauges.tidegauge_gpu_field_available)

    def collector(self, reason: str) -> None:
        """Whether telemetry is collected at all; "" if it is."""
        self.reason = reason
        self._collector.set({(): reason})

    def gpus(self, readings: Iterable[Reading]) -> None:
        """Which GPUs answer, and which of their values can be read."""
        readings = tuple(readings)
        self._devices.set({(each.gpu, each.node, each.gpu_model): each.problem for each in readings})
        self._fields.set({(each.gpu, name): reason for each in readings for name, reason in each.availability.items()})
