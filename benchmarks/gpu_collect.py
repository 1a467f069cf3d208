"""What a look at the GPUs costs, in all and by NVML call, beside nvidia-smi.

Example: python benchmarks/gpu_collect.py --looks 100 --interval 0.2
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

sys.path.insert(0, str(Path(__file__).parents[1]))

from collector.gpu.nvml import NvmlSource
from collector.gpu.settings import GpuSettings

SMI = [
    "nvidia-smi",
    "--query-gpu=uuid,power.draw,utilization.gpu,memory.used,temperature.gpu,clocks.sm",
    "--format=csv",
]


class TimedNvml:
    """pynvml with a stopwatch on every function."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        found = getattr(pynvml, name)
        if not (name.startswith("nvml") and callable(found)) or name == "nvmlEventSetWait_v2":
            return found
        return self._timed(name, found)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.spent[name].append(time.perf_counter() - started)

        return call


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum in milliseconds, and how many there were."""
    ordered = sorted(seconds)
    return {
        "calls": len(ordered),
        "median_ms": round(statistics.median(ordered) * 1e3, 3),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))] * 1e3, 3),
        "max_ms": round(ordered[-1] * 1e3, 3),
    }


def measure(looks: int, interval: float) -> dict[str, Any]:
    """Cost of `looks` looks after the first, which opens NVML and is told apart."""
    nvml = TimedNvml()
    source = NvmlSource(nvml, GpuSettings(), "benchmark")
    started = time.perf_counter()
    first = source.read(0.0)
    first_s = time.perf_counter() - started
    if not first.readings:
        return {"reason": first.reason}
    source.read(0.5)  # finds out what is not supported, GPM too
    nvml.spent.clear()
    wall, cpu = [], []
    for number in range(looks):
        time.sleep(interval)
        began, began_cpu = time.perf_counter(), time.thread_time()
        source.read(1.0 + number * interval)
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - began_cpu)
    source.close()
    return {
        "gpus": [reading.gpu_model for reading in first.readings],
        "first_look_ms": round(first_s * 1e3, 1),
        "look": summary(wall),
        "look_cpu": summary(cpu),
        "calls": {name: summary(spent) for name, spent in sorted(nvml.spent.items())},
    }


def smi(times: int) -> dict[str, float] | str:
    """Cost of one query by nvidia-smi."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        try:
            subprocess.run(SMI, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        spent.append(time.perf_counter() - started)
    return summary(spent)


def main() -> None:
    """Prints the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.2)
    parser.add_argument("--smi", type=int, default=5, help="how often nvidia-smi is run")
    options = parser.parse_args()
    result = measure(options.looks, options.interval)
    if "reason" not in result:
        result["nvidia_smi"] = smi(options.smi)
    print(json.dumps(result, indent=2))
    sys.exit(1 if "reason" in result else 0)


if __name__ == "__main__":
    main()
