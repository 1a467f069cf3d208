"""The recorded H100 telemetry comes out exactly as it went in: on `/metrics` and in `gpu_state`."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from gpu_fake_nvml import DATA, MODEL, UUID
from gpu_service import HandClock, Kept, instruments, named, scrape

from catalog.clock import SystemClock
from catalog.family import families
from catalog.gpu import gpu_readings
from collector.gpu.collector import GpuCollector
from collector.gpu.readings import Reading
from collector.gpu.recorded import recorded_reading, recorded_time
from collector.gpu.settings import GpuSettings
from store.database import Database
from store.reads import Reads
from store.settings import StoreSettings
from store.tables import GPU_STATE
from store.writer import Writer

LINES = [json.loads(line) for line in (DATA / "h100-llm-telemetry.jsonl").read_text().splitlines()]
BITS = {0: [], 1: ["gpu_idle"], 4: ["sw_power_cap"]}


def expected_state(line: dict[str, Any], pcie: dict[str, int]) -> dict[str, Any]:
    """What a line says, worked out apart from the product."""
    fields, gpm = line["fields"], line["gpm"]
    said = {
        "time": datetime.datetime.fromtimestamp(line["unix_seconds"], datetime.UTC),
        "gpu": UUID,
        "node": "recorded",
        "gpu_model": MODEL,
        "utilization_ratio": line["gpu_utilization_percent"] / 100,
        "memory_utilization_ratio": line["memory_utilization_percent"] / 100,
        "memory_usage_bytes": line["memory_used_bytes"],
        "memory_limit_bytes": line["memory_total_bytes"],
        "power_watts": fields["power_instant"] / 1000,
        "energy_joules": fields["total_energy_consumption"] / 1000,
        "temperature_celsius": line["temperature_celsius"],
        "memory_temperature_celsius": fields["memory_temp"],
        "sm_clock_hertz": line["sm_clock_mhz"] * 1_000_000,
        "memory_clock_hertz": line["mem_clock_mhz"] * 1_000_000,
        "sm_active_ratio": gpm["sm_util"] / 100,
        "sm_occupancy_ratio": gpm["sm_occupancy"] / 100,
        "tensor_active_ratio": gpm["any_tensor_util"] / 100,
        "dram_active_ratio": gpm["dram_bw_util"] / 100,
        "pcie_receive_bytes": pcie["rx"],
        "pcie_transmit_bytes": pcie["tx"],
        "processes": len(line["processes"]),
        "clock_event_reasons": json.dumps(BITS[line["clocks_event_reasons"]]),
        "pids": json.dumps([process["pid"] for process in line["processes"]]),
        "pods": "[]",
    }
    return {name: said.get(name) for name in GPU_STATE.names}


def unwrapped() -> list[dict[str, int]]:
    """Bytes over PCIe since the counters began; in this recording each wraps at most twice."""
    told = []
    total = {way: LINES[0]["fields"][f"pcie_count_{way}_bytes"] for way in ("rx", "tx")}
    for before, line in zip([LINES[0], *LINES], LINES, strict=False):
        for way in total:
            name = f"pcie_count_{way}_bytes"
            total[way] += (line["fields"][name] - before["fields"][name]) % 2**32
        told.append(dict(total))
    return told


def test_all_348_readings_are_stored_exactly():
    sink = Kept()
    collector = GpuCollector(GpuSettings(), None, sink, HandClock(), instruments())
    for line in LINES:
        collector.take([recorded_reading(line)], recorded_time(line))
    assert sink.rows() == [expected_state(line, pcie) for line, pcie in zip(LINES, unwrapped(), strict=True)]


def test_all_348_readings_are_served_exactly():
    metrics = instruments()
    collector = GpuCollector(GpuSettings(), None, Kept(), HandClock(), metrics)
    labels = {"gpu": UUID, "node": "recorded", "gpu_model": MODEL}
    for line, pcie in zip(LINES, unwrapped(), strict=True):
        collector.take([recorded_reading(line)], recorded_time(line))
        served = scrape(metrics.registry)
        state = expected_state(line, pcie)
        wrong = {
            entry.name: (
                served.get((entry.family, frozenset((labels | dict(entry.labels)).items()))),
                state[entry.column],
            )
            for entry in gpu_readings()
            if entry.column
            and served.get((entry.family, frozenset((labels | dict(entry.labels)).items()))) != state[entry.column]
        }
        assert wrong == {}
        active = {name for name, on in named(served, "hw_gpu_clock_event_active").items() if on}
        assert active == {f"reason={reason}" for reason in BITS[line["clocks_event_reasons"]]}


def test_a_reading_comes_back_from_the_database_as_it_was_taken(tmp_path: Path):
    database, metrics = Database(tmp_path), instruments()
    writer = Writer(database, SystemClock(), metrics, StoreSettings())
    collector = GpuCollector(GpuSettings(), None, writer, HandClock(), metrics)
    line = LINES[100]
    committed = collector.take([recorded_reading(line)], recorded_time(line))
    assert committed is not None
    committed.result(20)
    found = Reads(database).gpu_states(start=recorded_time(line) - 1, end=recorded_time(line) + 1)
    writer.close()
    database.close()
    expected = expected_state(line, {way: line["fields"][f"pcie_count_{way}_bytes"] for way in ("rx", "tx")})
    whole = {
        name: value for name, value in expected.items() if name not in ("time", "clock_event_reasons", "pids", "pods")
    }
    assert [{name: row[name] for name in whole} for row in found] == [whole]


def test_what_a_recording_does_not_say_is_not_served():
    metrics = instruments()
    collector = GpuCollector(GpuSettings(), None, Kept(), HandClock(), metrics)
    collector.take([recorded_reading({"unix_seconds": 1.0, "temperature_celsius": 43})], 1.0)
    served = {name for name, _ in scrape(metrics.registry) if name.startswith("hw_")}
    assert served == {"hw_temperature_celsius"}


def test_a_recording_may_name_another_card():
    reading = recorded_reading({}, gpu="GPU-2", gpu_model="H200", node="gpu-7")
    assert reading == Reading("GPU-2", "gpu-7", "H200")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param({"sm_clock_mhz": "fast"}, id="text for a number"),
        pytest.param({"fields": 3}, id="fields are no mapping"),
        pytest.param({"processes": [{}]}, id="a process without pid"),
    ],
)
def test_a_line_of_another_form_is_refused(line: dict[str, Any]):
    with pytest.raises(ValueError, match="not a line of recorded GPU telemetry"):
        recorded_reading(line)


def test_every_declared_reading_exists_and_goes_where_the_catalog_says():
    known = {name for name in dir(Reading) if not name.startswith("_")}
    readings = gpu_readings()
    assert {entry.name for entry in readings} <= known
    assert {entry.rate for entry in readings if entry.rate} <= {entry.name for entry in readings}
    for entry in readings:
        if entry.family:
            given = {"gpu", "node", "gpu_model", *entry.labels, *filter(None, [entry.spread])}
            assert set(families()[entry.family].labels) == given, entry.name


def test_every_column_of_the_state_table_has_a_reading():
    filled = {entry.column for entry in gpu_readings() if entry.column}
    others = {"time", "gpu", "node", "gpu_model", "clock_event_reasons", "pids", "pods"}
    assert set(GPU_STATE.names) == filled | others


def test_a_family_that_one_reading_fills_names_the_same_column():
    for entry in gpu_readings():
        state = families()[entry.family].state if entry.family else ""
        first = next(each for each in gpu_readings() if each.family == entry.family) is entry
        if state and first:
            assert state == entry.column
