"""What one look at the GPUs gives, in our units, and its row in `gpu_state`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from catalog.gpu import gpu_readings
from store.tables import GPU_STATE


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a compute context on a GPU; `pod` and `pod_uid` are empty outside Kubernetes or if unreadable."""

    pid: int
    memory_bytes: int | None = None
    pod: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at one moment; None means not said.

    Names and sources of the values stand in `catalog/gpu.toml`.  Counters are as the driver gives them, until
    `collector.gpu.counters` has corrected them.  `problem` says why a GPU gave nothing (lost, reset_required, driver).
    `availability` has "" for each value that can be read, else why not; what is not known yet is not in it.
    """

    gpu: str
    node: str
    gpu_model: str
    problem: str = ""
    mig: bool | None = None

    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    memory_usage_bytes: float | None = None
    memory_limit_bytes: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    clock_events: Mapping[str, int] | None = None
    sw_power_cap_seconds: float | None = None
    sync_boost_seconds: float | None = None
    sw_thermal_slowdown_seconds: float | None = None
    hw_thermal_slowdown_seconds: float | None = None
    hw_power_brake_slowdown_seconds: float | None = None
    ecc_correctable: float | None = None
    ecc_uncorrectable: float | None = None
    ecc_correctable_lifetime: float | None = None
    ecc_uncorrectable_lifetime: float | None = None
    pcie_replays: float | None = None
    remapped_rows_correctable: float | None = None
    remapped_rows_uncorrectable: float | None = None
    remapped_rows_pending: float | None = None
    remapped_rows_failed: float | None = None
    pcie_receive_bytes: float | None = None
    pcie_transmit_bytes: float | None = None
    pcie_receive_bytes_per_second: float | None = None
    pcie_transmit_bytes_per_second: float | None = None
    nvlink_receive_bytes: float | None = None
    nvlink_transmit_bytes: float | None = None
    sm_active_ratio: float | None = None
    sm_occupancy_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None

    running: tuple[GpuProcess, ...] | None = None
    xids: Mapping[str, int] | None = None  # by label value, since this process started
    availability: Mapping[str, str] = field(default_factory=dict)

    @property
    def processes(self) -> int | None:
        """Number of processes with a compute context."""
        return None if self.running is None else len(self.running)

    @property
    def xid_errors(self) -> int | None:
        """XID events of all codes."""
        return None if self.xids is None else sum(self.xids.values())


@dataclass(frozen=True, slots=True)
class Look:
    """One look at all GPUs; `reason` says why there are none (no_driver, no_device, no_permission, error).

    `failed` names the GPUs that this look asked in vain.
    """

    readings: tuple[Reading, ...] = ()
    reason: str = ""
    failed: tuple[str, ...] = ()


class Source(Protocol):
    """Where readings come from.  Both methods may block, and are called from one thread, not the event loop's."""

    def read(self, now: float) -> Look:
        """Looks at every GPU once; never raises for what a driver or a GPU does."""

    def close(self) -> None:
        """Lets go of the driver; may be called twice, or before the first look."""


def state_table(readings: Iterable[Reading], at: float) -> pa.Table:
    """The readings as rows of `gpu_state` at unix time `at`."""
    # Arrow truncates: a float's 1795424335.858 would become ...857999.
    micros = round(at * 1e6)
    rows = [_row(reading) | {"time": micros} for reading in readings]
    arrays = [pa.array([row.get(column.name) for row in rows]).cast(column.type) for column in GPU_STATE]
    return pa.Table.from_arrays(arrays, schema=GPU_STATE)


def _row(reading: Reading) -> dict[str, object]:
    row: dict[str, object] = {"gpu": reading.gpu, "node": reading.node, "gpu_model": reading.gpu_model}
    for entry in gpu_readings():
        if entry.column:
            value = getattr(reading, entry.name)
            row[entry.column] = None if value is None else float(value)
    if reading.clock_events is not None:
        row["clock_event_reasons"] = json.dumps([name for name, on in reading.clock_events.items() if on])
    if reading.running is not None:
        row["pids"] = json.dumps([process.pid for process in reading.running])
        row["pods"] = json.dumps(sorted({process.pod for process in reading.running if process.pod}))
    return row
