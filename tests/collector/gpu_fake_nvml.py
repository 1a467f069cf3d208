"""An NVML library that answers what a real H100 answered, and can be made to fail as real ones do.

It stands where `pynvml` goes.  Constants, structures and exceptions are pynvml's own.
"""

import ast
import ctypes
import json
import queue
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

DATA = Path(__file__).parents[1] / "data" / "gpu"
RECORDED = json.loads((DATA / "h100-nvml-calls.json").read_text())
UUID = "GPU-00000000-0000-0000-0000-000000000001"
MODEL = "NVIDIA H100 80GB HBM3"
# Answered from the recording, device first, the rest as recorded.
GETTERS = frozenset(call["call"] for call in RECORDED["idle"]["calls"])


def uuid(index: int) -> str:
    return UUID[:-1] + str(index + 1)


class FakeNvml:
    def __init__(self, snapshot: str = "idle", gpus: int = 1) -> None:
        self.snapshot = snapshot
        self.gpus = gpus
        self.errors: dict[str, int] = {}  # by function
        self.field_errors: dict[str, int] = {}
        self.metric_errors: dict[str, int] = {}
        self.field_values: dict[str, int] = {}
        self.absent: set[str] = set()  # attributes that this binding lacks
        self.lost: set[int] = set()
        self.mig = 0
        self.calls: Counter[str] = Counter()
        self.asked_fields: list[list[str]] = []
        self.open = 0
        self.samples = 0
        self.events: queue.Queue[tuple[int, int, int] | int] = queue.Queue()
        self.handles = [ctypes.pointer(pynvml.struct_c_nvmlDevice_t()) for _ in range(gpus)]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("absent", ()):
            raise AttributeError(name)
        if name in GETTERS:
            return lambda handle, *args: self._recorded(name, handle, args)
        if name.startswith("nvml") and callable(getattr(pynvml, name)):
            return self._checked(name)
        return getattr(pynvml, name)

    def _checked(self, name: str) -> Any:
        answer = getattr(FakeNvml, "do_" + name)

        def call(*args: Any) -> Any:
            self._enter(name, args[0] if args else None)
            return answer(self, *args)

        return call

    def _enter(self, name: str, subject: Any) -> None:
        self.calls[name] += 1
        if name in self.errors:
            raise pynvml.NVMLError(self.errors[name])
        if name != "nvmlInit" and not self.open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if subject in self.handles and self.handles.index(subject) in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def _recorded(self, name: str, handle: Any, args: tuple[Any, ...]) -> Any:
        self._enter(name, handle)
        if name == "nvmlDeviceGetUUID":
            return uuid(self.handles.index(handle))
        if name == "nvmlDeviceGetMigMode":
            return [self.mig, self.mig]
        wanted = [str(arg) for arg in args]
        for call in RECORDED[self.snapshot]["calls"]:
            if call["call"] == name and call["args"] == wanted:
                return _object(call["value"])
        raise AssertionError(f"{name}{tuple(wanted)} was not recorded")

    def do_nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def do_nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def do_nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def do_nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        if index in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.handles[index]

    def do_nvmlDeviceGetFieldValues(self, handle: Any, ids: list[tuple[int, int]]) -> Any:  # noqa: N802
        values = (pynvml.c_nvmlFieldValue_t * len(ids))()
        names = {getattr(pynvml, name): name for name in RECORDED["idle"]["fields"]}
        self.asked_fields.append([names[number] for number, _ in ids])
        for value, (number, scope) in zip(values, ids, strict=True):
            value.fieldId, value.scopeId = number, scope
            self._fill(value, names[number])
        return values

    def _fill(self, value: Any, name: str) -> None:
        native = self.field_values.get(name, RECORDED[self.snapshot]["fields"][name])
        if name in self.field_errors:
            native = {"nvmlReturn": self.field_errors[name]}
        if isinstance(native, dict):
            value.nvmlReturn = native["nvmlReturn"]
        elif native < 2**32:
            value.valueType, value.value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, native
        else:
            value.valueType, value.value.ullVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, native

    def do_nvmlGpmQueryDeviceSupport(self, handle: Any) -> Any:  # noqa: N802
        return SimpleNamespace(isSupportedDevice=1)

    def do_nvmlGpmSampleAlloc(self) -> Any:  # noqa: N802
        self.samples += 1
        return pynvml.c_nvmlGpmSample_t()

    def do_nvmlGpmSampleFree(self, sample: Any) -> None:  # noqa: N802
        self.samples -= 1

    def do_nvmlGpmSampleGet(self, handle: Any, sample: Any) -> Any:  # noqa: N802
        return sample

    def do_nvmlGpmMetricsGet(self, question: Any) -> Any:  # noqa: N802
        names = {getattr(pynvml, name): name for name in RECORDED["idle"]["gpm"]}
        for place in range(question.numMetrics):
            metric = question.metrics[place]
            name = names[metric.metricId]
            metric.nvmlReturn = self.metric_errors.get(name, 0)
            metric.value = RECORDED[self.snapshot]["gpm"][name]
        return question

    def do_nvmlEventSetCreate(self) -> Any:  # noqa: N802
        return pynvml.c_nvmlEventSet_t()

    def do_nvmlEventSetFree(self, events: Any) -> None:  # noqa: N802
        pass

    def do_nvmlDeviceRegisterEvents(self, handle: Any, types: int, events: Any) -> None:  # noqa: N802
        pass

    def do_nvmlEventSetWait_v2(self, events: Any, timeout_ms: int) -> Any:  # noqa: N802
        """Gives what was put into `events`: (index, event type, data), or an error's code."""
        try:
            event = self.events.get(timeout=min(timeout_ms, 20) / 1000)
        except queue.Empty:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT) from None
        if isinstance(event, int):
            raise pynvml.NVMLError(event)
        index, kind, data = event
        # A handle of its own that points to the same device, as NVML gives.
        device = ctypes.cast(self.handles[index], pynvml.c_nvmlDevice_t)
        return SimpleNamespace(device=device, eventType=kind, eventData=data)


def _object(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        value = ast.literal_eval(value)
    if isinstance(value, dict):
        return SimpleNamespace(**value)
    if isinstance(value, list):
        return [_object(each) for each in value]
    return value
