"""GPM profiling metrics (Hopper and newer): what the SMs, tensor pipes and DRAM did between two looks."""

import math
from collections.abc import Sequence
from typing import Any

from catalog.gpu import GpuReading, gpu_readings
from collector.gpu.availability import Availability
from collector.gpu.errors import Why, reason_of

SOURCE = "gpm"


class Gpm:
    """A pair of samples of one GPU; every look closes one interval and opens the next."""

    def __init__(self, nvml: Any, handle: Any, availability: Availability) -> None:
        self._nvml = nvml
        self._handle = handle
        self._availability = availability
        self._entries = tuple(entry for entry in gpu_readings() if entry.gpm)
        self._supported = False
        self._last: Any = None
        self._spare: Any = None

    def read(self, now: float, *, mig: bool) -> dict[str, float]:
        """The metrics since the last look; nothing at the first.  Raises GpuLost."""
        if not self._availability.asks(SOURCE, now):
            return {}
        try:
            if not self._is_supported():
                self._rest(Why.MIG if mig else Why.NOT_SUPPORTED, now)
                return {}
            return self._since_last(now, mig=mig)
        except self._nvml.NVMLError as error:
            self._rest(reason_of(self._nvml, error.value, mig=mig), now)
        except AttributeError:
            self._rest(Why.DRIVER_TOO_OLD, now)
        return {}

    def close(self) -> None:
        """Frees the samples."""
        for sample in (self._last, self._spare):
            if sample is not None:
                self._nvml.nvmlGpmSampleFree(sample)
        self._last = self._spare = None

    def _is_supported(self) -> bool:
        if not self._supported:
            self._supported = bool(self._nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice)
        return self._supported

    def _rest(self, why: Why, now: float) -> None:
        self._availability.failed(SOURCE, [entry.name for entry in self._entries], why, now)
        self.close()

    def _since_last(self, now: float, *, mig: bool) -> dict[str, float]:
        sample = self._spare if self._spare is not None else self._nvml.nvmlGpmSampleAlloc()
        self._spare = sample
        self._nvml.nvmlGpmSampleGet(self._handle, sample)
        last, self._last, self._spare = self._last, sample, None
        if last is None:
            return {}
        self._spare = last
        entries = [entry for entry in self._entries if self._availability.asks(entry.gpm, now)]
        return self._compare(entries, last, sample, now, mig=mig)

    def _compare(
        self, entries: Sequence[GpuReading], last: Any, sample: Any, now: float, *, mig: bool
    ) -> dict[str, float]:
        nvml = self._nvml
        question = nvml.c_nvmlGpmMetricsGet_t()
        question.version = nvml.NVML_GPM_METRICS_GET_VERSION
        question.numMetrics = len(entries)
        question.sample1, question.sample2 = last, sample
        for place, entry in enumerate(entries):
            question.metrics[place].metricId = getattr(nvml, entry.gpm)
        answer = nvml.nvmlGpmMetricsGet(question)
        values: dict[str, float] = {}
        for place, entry in enumerate(entries):
            metric = answer.metrics[place]
            if metric.nvmlReturn != nvml.NVML_SUCCESS:
                why = reason_of(nvml, metric.nvmlReturn, mig=mig)
                self._availability.failed(entry.gpm, [entry.name], why, now)
            elif math.isfinite(metric.value):
                values[entry.name] = entry.scaled(metric.value)
        return values
