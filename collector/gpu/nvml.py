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
        self._reason = ""
        self._retry_at = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._xid_counts = XidCounts()
        self._xid_missing: dict[str, str] = {}
        self._watcher: XidWatcher | None = None

    def read(self, now: float) -> Look:
        """Looks at every GPU once."""
        if (self._problems or not self._open) and now >= self._retry_at:
            self._reopen(now)
        if not self._open and not self._known:
            return Look(reason=self._reason)
        readings, failed = [], []
        for gpu, identity in self._known.items():
            reading = self._read_one(gpu, now)
            if reading is None:
                reading = Reading(
                    identity.gpu, identity.node, identity.gpu_model, problem=self._problems.get(gpu, "lost")
                )
                failed.append(gpu)
            readings.append(self._with_xids(reading))
        if failed and self._retry_at <= now:
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)
        if not failed:
            self._backoff_s = FIRST_BACKOFF_S
        return Look(tuple(readings), reason="" if self._open else self._reason, failed=tuple(failed))

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

    def _read_one(self, gpu: str, now: float) -> Reading | None:
        device = self._devices.get(gpu)
        if device is None or gpu in self._problems:
            return None
        try:
            return device.read(now)
        except GpuLost as lost:
            self._problems[gpu] = lost.problem
            log.warning("gpu_lost", extra={"gpu": gpu, "problem": lost.problem})
            return None

    def _with_xids(self, reading: Reading) -> Reading:
        missing = self._xid_missing.get(reading.gpu, "")
        if missing:
            return replace(reading, availability={**reading.availability, "xid_errors": missing})
        availability = reading.availability and {**reading.availability, "xid_errors": ""}
        return replace(reading, xids=self._xid_counts.of(reading.gpu), availability=availability)

    def _reopen(self, now: float) -> None:
        self.close()
        # Whatever is said below, the next try comes after a pause.
        self._retry_at = now + self._settings.absent_retry
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._reason = absence_of(self._nvml, error.value)
            self._problems = dict.fromkeys(self._known, "driver")
            return
        self._open = True
        self._reason = ""
        self._find_devices()
        self._problems = {gpu: self._problems.get(gpu, "lost") for gpu in self._known if gpu not in self._devices}
        if self._problems:
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)
        if not self._known:
            self._reason = "no_device"
            self.close()
        elif self._devices:
            self._watch()

    def _find_devices(self) -> None:
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            log.warning("gpu_count_failed", extra={"error": str(error)})
            return
        for index in range(count):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                device = NvmlDevice(self._nvml, handle, self._node, self._settings.field_retry, self._proc)
            except self._nvml.NVMLError as error:
                problem = problem_of(self._nvml, error.value) or "error"
                log.warning("gpu_unreadable", extra={"index": index, "problem": problem, "error": str(error)})
                continue
            self._devices[device.identity.gpu] = device
            self._known[device.identity.gpu] = device.identity

    def _watch(self) -> None:
        self._watcher = XidWatcher(self._nvml, self._xid_counts)
        for gpu, device in self._devices.items():
            try:
                self._xid_missing[gpu] = self._watcher.watch(gpu, device.handle)
            except GpuLost as lost:
                self._problems[gpu] = lost.problem
        self._watcher.start()

    def _quietly(self, close: Any) -> None:
        try:
            close()
        except (self._nvml.NVMLError, AttributeError) as error:
            log.debug("gpu_close_failed", extra={"error": str(error)})
