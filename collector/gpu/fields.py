"""The batched field values: one NVML call for all counters and gauges that have a field id."""

import math
from typing import Any

from catalog.gpu import GpuReading, gpu_readings
from collector.gpu.availability import Availability
from collector.gpu.errors import Why, field_reason_of, reason_of

SOURCE = "field_values"
# Which member of the value's union holds the number, by NVML_VALUE_TYPE_*.
MEMBERS = {
    "NVML_VALUE_TYPE_DOUBLE": "dVal",
    "NVML_VALUE_TYPE_UNSIGNED_INT": "uiVal",
    "NVML_VALUE_TYPE_UNSIGNED_LONG": "ulVal",
    "NVML_VALUE_TYPE_UNSIGNED_LONG_LONG": "ullVal",
    "NVML_VALUE_TYPE_SIGNED_LONG_LONG": "sllVal",
    "NVML_VALUE_TYPE_SIGNED_INT": "siVal",
    "NVML_VALUE_TYPE_UNSIGNED_SHORT": "usVal",
}


class FieldValues:
    """Reads every field of the catalog that the card and the driver have."""

    def __init__(self, nvml: Any, handle: Any, availability: Availability) -> None:
        self._nvml = nvml
        self._handle = handle
        self._availability = availability
        self._entries = tuple(entry for entry in gpu_readings() if entry.field)
        self._members = {getattr(nvml, name): member for name, member in MEMBERS.items() if hasattr(nvml, name)}

    def read(self, now: float, *, mig: bool) -> dict[str, float]:
        """Values by reading.  Raises GpuLost."""
        if not self._availability.asks(SOURCE, now):
            return {}
        entries = [entry for entry in self._entries if self._known(entry, now)]
        try:
            answers = self._nvml.nvmlDeviceGetFieldValues(
                self._handle, [(getattr(self._nvml, entry.field), entry.scope) for entry in entries]
            )
        except self._nvml.NVMLError as error:
            self._rest(reason_of(self._nvml, error.value, mig=mig), now)
            return {}
        except AttributeError:
            self._rest(Why.DRIVER_TOO_OLD, now)
            return {}
        values = {
            entry.name: self._value(entry, answer, now, mig=mig) for entry, answer in zip(entries, answers, strict=True)
        }
        return {name: value for name, value in values.items() if value is not None}

    def _known(self, entry: GpuReading, now: float) -> bool:
        if not self._availability.asks(entry.field, now):
            return False
        if not hasattr(self._nvml, entry.field):
            self._availability.failed(entry.field, [entry.name], Why.DRIVER_TOO_OLD, now)
            return False
        return True

    def _value(self, entry: GpuReading, answer: Any, now: float, *, mig: bool) -> float | None:
        if answer.nvmlReturn != self._nvml.NVML_SUCCESS:
            why = field_reason_of(self._nvml, answer.nvmlReturn, mig=mig)
            self._availability.failed(entry.field, [entry.name], why, now)
            return None
        member = self._members.get(answer.valueType)
        if member is None:
            self._availability.failed(entry.field, [entry.name], Why.ERROR, now)
            return None
        number = getattr(answer.value, member)
        return entry.scaled(number) if math.isfinite(number) else None

    def _rest(self, why: Why, now: float) -> None:
        self._availability.failed(SOURCE, [entry.name for entry in self._entries], why, now)
