"""Counts XID events, which the driver reports once, as they come."""

import ctypes
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from catalog.gpu import xid_label, xids
from collector.gpu.errors import Why, reason_of

log = logging.getLogger(__name__)

# The watcher looks this often whether it is to stop.
WAIT_MS = 500
STOP_DEADLINE_S = 5.0
FAILURE_PAUSE_S = 1.0


class XidCounts:
    """Events by GPU and code, since the process started; outlives the driver's reloads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, gpu: str, code: int) -> None:
        """One event more."""
        with self._lock:
            self._counts.setdefault(gpu, Counter())[xid_label(code)] += 1

    def of(self, gpu: str) -> Mapping[str, int]:
        """Events of one GPU by the code's label value; empty if none came."""
        with self._lock:
            return dict(self._counts.get(gpu, {}))


class XidWatcher:
    """A thread that waits for XID events of the GPUs it was given, until it is stopped."""

    def __init__(self, nvml: Any, counts: XidCounts) -> None:
        self._nvml = nvml
        self._counts = counts
        self._set: Any = None
        self._gpus: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-xid", daemon=True)

    def watch(self, gpu: str, handle: Any) -> str:
        """Registers a GPU; "" or why its events cannot be had.  Raises GpuLost."""
        try:
            if self._set is None:
                self._set = self._nvml.nvmlEventSetCreate()
            wanted = self._nvml.nvmlEventTypeXidCriticalError
            if not self._nvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                return Why.NOT_SUPPORTED
            self._nvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
        except self._nvml.NVMLError as error:
            return reason_of(self._nvml, error.value, mig=False)
        except AttributeError:
            return Why.DRIVER_TOO_OLD
        # By address: a GPU that fell off the bus does not even say its UUID any more.
        self._gpus[_address(handle)] = gpu
        return ""

    def start(self) -> None:
        """Starts waiting, if there is anything to wait for."""
        if self._gpus:
            self._thread.start()

    def stop(self) -> bool:
        """Stops; False if the driver did not let go of the thread, which then must keep the library open."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_DEADLINE_S)
        if self._thread.is_alive():
            return False
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError as error:
                log.debug("gpu_xid_free_failed", extra={"error": str(error)})
            self._set = None
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, WAIT_MS)
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    # With a GPU lost the wait ends at once, again and again.
                    self._stop.wait(FAILURE_PAUSE_S)
                continue
            self._count(event)

    def _count(self, event: Any) -> None:
        gpu = self._gpus.get(_address(event.device))
        if gpu is None or not event.eventType & self._nvml.nvmlEventTypeXidCriticalError:
            return
        code = int(event.eventData)
        self._counts.add(gpu, code)
        xid = xids()[xid_label(code)]
        log.warning("gpu_xid", extra={"gpu": gpu, "xid": code, "cause": xid.cause, "meaning": xid.meaning})


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
