"""The GPUs of this machine, through NVML: found, read, lost, and found again."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from collector.gpu.device import Identity, NvmlDevice
from collector.gpu.errors import GpuLost, absence_of, problem_of
from collector.gpu.readings import Look, Reading
from collector.gpu.settings import GpuSettings
from collector.gpu.xid import XidCounts, XidWatcher

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0


class NvmlSource:
    """Reads every GPU that NVML shows.

    `nvml` is the module `pynvml`, or whatever has its functions.  A GPU that is lost is reported as such, with the
    XIDs it sent, while NVML is opened anew with a growing pause; the others are read as before.
    """

    def __init__(self, nvml: Any, settings: GpuSettings, node: str, *, proc: Path = Path("/proc")) -> None:
        self._nvml = nvml
        self._settings = settings
        self._node = node
        self._proc = proc
        self._open = False
        self._devices: dict[str, NvmlDevice] = {}
        self._known: dict[str, Identity] = {}
        self._problems: dict[str, str] = {}
        self._failed: list[str] = []
        self._reason = ""
        self._retry_at = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._xid_counts = XidCounts()
        self._xid_missing: dict[str, str] = {}
        self._watcher: XidWatcher | None = None

    def read(self, now: float) -> Look:
        """Looks at every GPU once."""
        self._failed = []
        if (self._problems or not self._open) and now >= self._retry_at:
            self._reopen(now)
        readings = tuple(self._with_xids(self._read_one(identity, now)) for identity in self._known.values())
        if self._failed:
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)
        elif not self._problems:
            self._backoff_s = FIRST_BACKOFF_S
        return Look(readings, reason=self._reason, failed=tuple(self._failed))

    def close(self) -> None:
        """Stops the XID watcher and shuts NVML down, unless the driver holds the watcher's thread."""
        let_go = self._watcher is None or self._watcher.stop()
        self._watcher = None
        if self._open and let_go:
            for device in self._devices.values():
                self._quietly(device.close)
            self._quietly(self._nvml.nvmlShutdown)
        self._devices = {}
        self._open = False

    def _read_one(self, identity: Identity, now: float) -> Reading:
        gpu = identity.gpu
        if gpu not in self._problems:
            try:
                return self._devices[gpu].read(now)
            except GpuLost as lost:
                self._lose(gpu, lost.problem)
        return Reading(gpu, identity.node, identity.gpu_model, problem=self._problems[gpu])

    def _lose(self, gpu: str, problem: str) -> None:
        self._problems[gpu] = problem
        self._failed.append(gpu)
        log.warning("gpu_lost", extra={"gpu": gpu, "problem": problem})

    def _with_xids(self, reading: Reading) -> Reading:
        missing = self._xid_missing.get(reading.gpu, "")
        if missing:
            return replace(reading, availability={**reading.availability, "xid_errors": missing})
        availability = reading.availability and {**reading.availability, "xid_errors": ""}
        return replace(reading, xids=self._xid_counts.of(reading.gpu), availability=availability)

    def _reopen(self, now: float) -> None:
        """Opens NVML and finds the GPUs; for lack of any it is tried again after `absent_retry`."""
        self.close()
        self._retry_at = now + self._settings.absent_retry
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._reason = absence_of(self._nvml, error.value)
            self._miss_the_rest("driver")
            return
        self._open = True
        self._problems = {}
        self._reason = self._find_devices()
        self._miss_the_rest("lost")
        if self._devices:
            self._watch()
        else:
            self.close()

    def _miss_the_rest(self, problem: str) -> None:
        for gpu in self._known:
            if gpu not in self._devices:
                self._lose(gpu, problem)

    def _find_devices(self) -> str:
        """Fills in the devices that answer; "" or why there are none."""
        problem = "no_device"
        try:
            for index in range(self._nvml.nvmlDeviceGetCount()):
                problem = self._find_device(index) or problem
        except self._nvml.NVMLError as error:
            return absence_of(self._nvml, error.value)
        return "" if self._devices else problem

    def _find_device(self, index: int) -> str:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            device = NvmlDevice(self._nvml, handle, self._node, self._settings.field_retry, self._proc)
        except self._nvml.NVMLError as error:
            problem = problem_of(self._nvml, error.value) or absence_of(self._nvml, error.value)
            log.warning("gpu_unreadable", extra={"index": index, "problem": problem, "error": str(error)})
            return problem
        self._devices[device.identity.gpu] = device
        self._known[device.identity.gpu] = device.identity
        return ""

    def _watch(self) -> None:
        self._watcher = XidWatcher(self._nvml, self._xid_counts)
        for gpu, device in self._devices.items():
            try:
                self._xid_missing[gpu] = self._watcher.watch(gpu, device.handle)
            except GpuLost as lost:
                self._lose(gpu, lost.problem)
        self._watcher.start()

    def _quietly(self, close: Any) -> None:
        try:
            close()
        except (self._nvml.NVMLError, AttributeError) as error:
            log.debug("gpu_close_failed", extra={"error": str(error)})
