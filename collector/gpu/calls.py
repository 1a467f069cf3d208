"""The NVML getters that are no field values: one call each, with what each gives in our units."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.gpu import OTHER, clock_event_bits
from collector.gpu.readings import GpuProcess

MILLI = 1000
MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One getter: the readings it gives, and how.  It is made only if one of them is not known yet."""

    name: str
    gives: tuple[str, ...]
    read: Callable[[Any, Any], Mapping[str, Any]]


def clock_events(bits: int) -> dict[str, int]:
    """1 or 0 by reason; `other` stands for bits that the catalog does not name."""
    events = {name: int(bool(bits & bit)) for name, bit in clock_event_bits().items()}
    events[OTHER] = int(bool(bits & ~sum(clock_event_bits().values())))
    return events


def _utilization(nvml: Any, handle: Any) -> Mapping[str, Any]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilization_ratio": rates.gpu / 100, "memory_utilization_ratio": rates.memory / 100}


def _memory(info: Any) -> Mapping[str, Any]:
    return {"memory_usage_bytes": info.used, "memory_limit_bytes": info.total}


def _processes(nvml: Any, handle: Any) -> Mapping[str, Any]:
    found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return {"running": tuple(GpuProcess(each.pid, each.usedGpuMemory) for each in found)}


# In order: a later call that gives the same is the older driver's way.
CALLS: tuple[Call, ...] = (
    # A one-second average; the field POWER_INSTANT comes first.
    Call("power", ("power_watts",), lambda nvml, handle: {"power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / MILLI}),
    Call(
        "power_limit",
        ("power_limit_watts",),
        lambda nvml, handle: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / MILLI},
    ),
    Call(
        "energy",
        ("energy_joules",),
        lambda nvml, handle: {"energy_joules": nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / MILLI},
    ),
    Call("utilization", ("utilization_ratio", "memory_utilization_ratio"), _utilization),
    Call(
        "memory",
        ("memory_usage_bytes", "memory_limit_bytes"),
        lambda nvml, handle: _memory(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)),
    ),
    # Counts what the driver reserves (0.5 GB on an H100) as used.
    Call(
        "memory_v1",
        ("memory_usage_bytes", "memory_limit_bytes"),
        lambda nvml, handle: _memory(nvml.nvmlDeviceGetMemoryInfo(handle)),
    ),
    Call(
        "temperature",
        ("temperature_celsius",),
        lambda nvml, handle: {"temperature_celsius": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)},
    ),
    Call(
        "sm_clock",
        ("sm_clock_hertz",),
        lambda nvml, handle: {"sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * MEGA},
    ),
    Call(
        "memory_clock",
        ("memory_clock_hertz",),
        lambda nvml, handle: {"memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM) * MEGA},
    ),
    Call(
        "clock_events",
        ("clock_events",),
        lambda nvml, handle: {"clock_events": clock_events(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))},
    ),
    Call(
        "clock_throttle",
        ("clock_events",),
        lambda nvml, handle: {"clock_events": clock_events(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))},
    ),
    Call("processes", ("running",), _processes),
)
