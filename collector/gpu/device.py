"""Reads one GPU through NVML; what it cannot say costs only that value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collector.gpu.availability import Availability
from collector.gpu.calls import CALLS, Call
from collector.gpu.errors import GpuLost, Why, problem_of, reason_of
from collector.gpu.fields import FieldValues
from collector.gpu.gpm import Gpm
from collector.gpu.pods import Pods
from collector.gpu.readings import Reading

# H100s switch MIG without a reset; asking takes 0.2 ms.
MIG_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Identity:
    """The labels of a GPU."""

    gpu: str
    node: str
    gpu_model: str


class NvmlDevice:
    """One GPU, from its handle on until the driver or the GPU goes away."""

    def __init__(self, nvml: Any, handle: Any, node: str, field_retry_s: float, proc: Path) -> None:
        """Raises the library's NVMLError if the GPU does not say who it is."""
        self.handle = handle
        self.identity = Identity(nvml.nvmlDeviceGetUUID(handle), node, nvml.nvmlDeviceGetName(handle))
        self._nvml = nvml
        self._availability = Availability(field_retry_s)
        self._fields = FieldValues(nvml, handle, self._availability)
        self._gpm = Gpm(nvml, handle, self._availability)
        self._pods = Pods(proc)
        self._mig: bool | None = None
        self._mig_due = 0.0

    def read(self, now: float) -> Reading:
        """Everything the GPU says now.  Raises GpuLost."""
        self._look_for_mig(now)
        mig = bool(self._mig)
        # The counters and the GPM sample lie close together: the one's rate counts the other's wraps.
        values: dict[str, Any] = {**self._fields.read(now, mig=mig), **self._gpm.read(now, mig=mig)}
        for call in CALLS:
            if any(name not in values for name in call.gives) and self._availability.asks(call.name, now):
                values.update(self._make(call, now, mig=mig))
        availability = self._availability.settle(values)
        if values.get("running"):
            values["running"] = self._pods.name(values["running"])
        who = self.identity
        reading = Reading(who.gpu, who.node, who.gpu_model, mig=self._mig, availability=availability)
        return replace(reading, **values)

    def close(self) -> None:
        """Frees what NVML allocated."""
        self._gpm.close()

    def _make(self, call: Call, now: float, *, mig: bool) -> Mapping[str, Any]:
        try:
            return call.read(self._nvml, self.handle)
        except self._nvml.NVMLError as error:
            self._availability.failed(call.name, call.gives, reason_of(self._nvml, error.value, mig=mig), now)
        except AttributeError:
            self._availability.failed(call.name, call.gives, Why.DRIVER_TOO_OLD, now)
        return {}

    def _look_for_mig(self, now: float) -> None:
        if now < self._mig_due:
            return
        self._mig_due = now + MIG_EVERY_S
        try:
            current, _pending = self._nvml.nvmlDeviceGetMigMode(self.handle)
            self._mig = current == self._nvml.NVML_DEVICE_MIG_ENABLE
        except AttributeError:
            self._mig = None
        except self._nvml.NVMLError as error:
            problem = problem_of(self._nvml, error.value)
            if problem:
                raise GpuLost(problem) from error
            self._mig = None  # cards before Ampere have no MIG
