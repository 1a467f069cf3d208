"""On a machine with an NVIDIA GPU: the collector beside nvidia-smi, under load.  Run with `pytest -m gpu -s`."""

import asyncio
import contextlib
import csv
import datetime
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pynvml
import pytest
from gpu_service import Kept, instruments, named, scrape

from catalog.clock import SystemClock
from collector.gpu.collector import GpuCollector, host_node
from collector.gpu.nvml import NvmlSource
from collector.gpu.settings import GpuSettings

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(180)]

MIB = 2**20
LOAD = Path(__file__).with_name("gpu_load.py")
# nvidia-smi's column, ours, ours in its unit, and by how much the means over a phase may differ: a share of the value
# (the two look at different moments of a load that is steady, 2 to 6 times a second) or an absolute amount.
COMPARED = (
    ("utilization.gpu", "utilization_ratio", 100, 0.0, 10.0),
    ("utilization.memory", "memory_utilization_ratio", 100, 0.0, 10.0),
    ("memory.used", "memory_usage_bytes", 1 / MIB, 0.0, 1.0),
    ("memory.total", "memory_limit_bytes", 1 / MIB, 0.0, 0.5),
    ("power.draw.instant", "power_watts", 1, 0.10, 10.0),
    ("enforced.power.limit", "power_limit_watts", 1, 0.0, 0.01),
    ("temperature.gpu", "temperature_celsius", 1, 0.0, 2.0),
    ("temperature.memory", "memory_temperature_celsius", 1, 0.0, 2.0),
    ("clocks.sm", "sm_clock_hertz", 1e-6, 0.05, 30.0),
    ("clocks.mem", "memory_clock_hertz", 1e-6, 0.0, 1.0),
)


@dataclass
class Run:
    """A quarter of a minute or so of both, and what the load did when."""

    rows: list[dict[str, Any]]
    smi: list[dict[str, Any]]
    phases: dict[str, dict[str, float]]
    served: dict[Any, float]
    statuses: list[dict[str, Any]]

    def ours(self, phase: str) -> list[dict[str, Any]]:
        """Rows from the steady part of a phase; GPM's values are about the second before."""
        return [row for row in self.rows if self._steady(phase, row["time"].timestamp())]

    def theirs(self, phase: str) -> list[dict[str, Any]]:
        return [row for row in self.smi if self._steady(phase, row["time"])]

    def _steady(self, phase: str, at: float) -> bool:
        return self.phases[phase]["start"] + 2 < at < self.phases[phase]["end"] - 0.2


async def _collect(seconds_after_load: float) -> Run:
    sink, metrics = Kept(), instruments()
    gpu = GpuSettings(interval=0.5)
    source = NvmlSource(pynvml, gpu, host_node(gpu))
    collector = GpuCollector(gpu, source, sink, SystemClock(), metrics)
    loop = asyncio.create_task(collector.run())
    columns = ["timestamp", *(column for column, *_ in COMPARED)]
    query = [
        "nvidia-smi",
        f"--query-gpu={','.join(columns)}",
        "--format=csv,noheader,nounits",
        "-lms",
        "250",
        "-i",
        "0",
    ]
    smi = await asyncio.create_subprocess_exec(*query, stdout=subprocess.PIPE)
    load = await asyncio.create_subprocess_exec(sys.executable, str(LOAD), stdout=subprocess.PIPE)
    reader = asyncio.create_task(smi.communicate())
    told, _ = await load.communicate()
    assert load.returncode == 0, "the load did not run"
    await asyncio.sleep(seconds_after_load)
    smi.terminate()
    text, _ = await reader
    served, statuses = scrape(metrics.registry), collector.statuses()
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    phases = {line["phase"]: line for line in map(json.loads, told.decode().splitlines())}
    rows = [row for row in sink.rows() if row["gpu"] == statuses[0]["gpu"]]
    return Run(rows, _smi_rows(text.decode(), columns), phases, served, statuses)


def _smi_rows(text: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(cells) == len(columns):
            at = datetime.datetime.strptime(cells[0], "%Y/%m/%d %H:%M:%S.%f").astimezone().timestamp()
            rows.append({"time": at} | {name: _number(cell) for name, cell in zip(columns[1:], cells[1:], strict=True)})
    return rows


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None  # [N/A]


@pytest.fixture(scope="module")
def run() -> Run:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch makes the load, and is not installed")
    return asyncio.run(_collect(1.0))


@pytest.mark.parametrize("phase", ["matmul", "memory", "pcie", "idle"])
def test_values_agree_with_nvidia_smi(run: Run, phase: str):
    ours, theirs = run.ours(phase), run.theirs(phase)
    assert min(len(ours), len(theirs)) >= 4
    wrong = []
    for column, name, times, share, amount in COMPARED:
        smi = [row[column] for row in theirs if row[column] is not None]
        if not smi:
            continue
        mine, other = mean(row[name] * times for row in ours), mean(smi)
        print(f"{phase:8} {column:22} tidegauge {mine:12.3f}   nvidia-smi {other:12.3f}")
        if abs(mine - other) > max(amount, share * other):
            wrong.append((column, mine, other))
    assert wrong == []


def test_profiling_tells_compute_bound_from_memory_bound_where_utilisation_does_not(run: Run):
    if run.rows[-1]["sm_active_ratio"] is None:
        pytest.skip(f"no GPM here: {run.statuses[0]['missing']}")
    names = ("utilization_ratio", "sm_active_ratio", "sm_occupancy_ratio", "tensor_active_ratio", "dram_active_ratio")
    means = {phase: {name: mean(row[name] for row in run.ours(phase)) for name in names} for phase in run.phases}
    print(json.dumps(means, indent=1))
    matmul, memory = means["matmul"], means["memory"]
    assert min(matmul["utilization_ratio"], memory["utilization_ratio"]) > 0.9
    assert matmul["tensor_active_ratio"] > 0.5 > matmul["dram_active_ratio"]
    assert memory["dram_active_ratio"] > 0.5 > memory["tensor_active_ratio"]


def test_bytes_over_pcie_are_those_that_were_copied(run: Run):
    """The 32-bit counter wraps a dozen times a second meanwhile; packets' headers add a few percent."""
    start, end, sent = (run.phases["pcie"][key] for key in ("start", "end", "bytes"))
    before = [row for row in run.rows if row["time"].timestamp() < start - 0.1][-1]
    after = next(row for row in run.rows if row["time"].timestamp() > end + 0.6)
    moved = after["pcie_receive_bytes"] - before["pcie_receive_bytes"]
    print(f"copied {sent / 1e9:.2f} GB, counted {moved / 1e9:.2f} GB ({moved / sent - 1:+.1%})")
    assert 0.98 * sent < moved < 1.20 * sent


def test_energy_is_power_over_time(run: Run):
    rows = run.ours("matmul")
    seconds = (rows[-1]["time"] - rows[0]["time"]).total_seconds()
    watts = (rows[-1]["energy_joules"] - rows[0]["energy_joules"]) / seconds
    power = mean(row["power_watts"] for row in rows)
    print(f"energy says {watts:.1f} W, power says {power:.1f} W")
    assert watts == pytest.approx(power, rel=0.10)


def test_the_loads_process_is_named_on_its_gpu(run: Run):
    assert {row["processes"] for row in run.ours("matmul")} != {0.0}


def test_what_is_missing_says_why_and_a_look_is_cheap(run: Run):
    took = named(run.served, "tidegauge_gpu_collect_duration_seconds")[""]
    print("missing:", run.statuses[0]["missing"], f"last look took {took * 1e3:.1f} ms")
    assert set(run.statuses[0]["missing"].values()) <= {"not_supported", "no_permission", "mig", "driver_too_old"}
    assert took < 0.1
