"""Reads the recorded telemetry form (`gpu.jsonl.xz`): one line a reading.

A line has NVML's own names, units and numbers, or, under `reading`, what `tidegauge record` wrote of a Reading.
"""

from collections.abc import Mapping
from typing import Any

from catalog.gpu import gpu_readings
from collector.gpu.calls import clock_events
from collector.gpu.readings import GpuProcess, Reading

# Of the recorded card; its own id was replaced.
GPU = "GPU-00000000-0000-0000-0000-000000000001"
GPU_MODEL = "NVIDIA H100 80GB HBM3"
NODE = "recorded"

# The reading, the line's key, and what the key's number is multiplied and divided by.
PLAIN = (
    ("utilization_ratio", "gpu_utilization_percent", 1, 100),
    ("memory_utilization_ratio", "memory_utilization_percent", 1, 100),
    ("memory_usage_bytes", "memory_used_bytes", 1, 1),
    ("memory_limit_bytes", "memory_total_bytes", 1, 1),
    ("power_watts", "power_usage_mw", 1, 1000),
    ("temperature_celsius", "temperature_celsius", 1, 1),
    ("sm_clock_hertz", "sm_clock_mhz", 1_000_000, 1),
    ("memory_clock_hertz", "mem_clock_mhz", 1_000_000, 1),
)


def recorded_time(line: Mapping[str, Any]) -> float:
    """When the line was recorded, in unix seconds."""
    return float(line["unix_seconds"])


def recorded_reading(
    line: Mapping[str, Any], *, gpu: str = GPU, gpu_model: str = GPU_MODEL, node: str = NODE
) -> Reading:
    """One recorded line as a reading; what the line lacks is None.

    Raises ValueError for a line that is not of this form.
    """
    try:
        if "reading" in line:
            return _whole(line["reading"])
        return Reading(gpu, node, gpu_model, **_values(line))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a line of recorded GPU telemetry: {error}") from error


def _values(line: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: line[key] * times / divide for name, key, times, divide in PLAIN if line.get(key) is not None
    }
    fields, gpm = line.get("fields", {}), line.get("gpm", {})
    for entry in gpu_readings():
        native = None
        if entry.field:
            native = fields.get(entry.field.removeprefix("NVML_FI_DEV_").lower())
        elif entry.gpm:
            native = gpm.get(entry.gpm.removeprefix("NVML_GPM_METRIC_").lower())
        if native is not None:
            values[entry.name] = entry.scaled(native)
    if line.get("clocks_event_reasons") is not None:
        values["clock_events"] = clock_events(line["clocks_event_reasons"])
    if line.get("processes") is not None:
        values["running"] = tuple(GpuProcess(each["pid"], each.get("used_memory_bytes")) for each in line["processes"])
    return values


def _whole(reading: Mapping[str, Any]) -> Reading:
    running = reading.get("running")
    made = None if running is None else tuple(GpuProcess(**process) for process in running)
    return Reading(**{**reading, "running": made})
