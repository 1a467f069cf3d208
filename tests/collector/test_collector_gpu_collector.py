"""The collector's loop: pace, metrics about itself, and nothing that stops it."""

import asyncio
import threading
import time

import pynvml
import pytest
from gpu_fake_nvml import MODEL, UUID, FakeNvml, uuid
from gpu_service import HandClock, Kept, instruments, named, scrape
from pydantic import ValidationError

from collector.gpu.collector import GpuCollector
from collector.gpu.nvml import NvmlSource
from collector.gpu.readings import Look, Reading
from collector.gpu.settings import GpuSettings
from store.writer import StoreOverloaded, StoreUnavailable


class Parts:
    """A collector over the fake library, with what it stands between."""

    def __init__(self, nvml: FakeNvml, ticks: int = 10**9, **gpu: object) -> None:
        self.settings = GpuSettings.model_validate(gpu)
        self.clock = HandClock(ticks)
        self.sink = Kept()
        self.metrics = instruments()
        self.source = NvmlSource(nvml, self.settings, "node-1")
        self.collector = GpuCollector(self.settings, self.source, self.sink, self.clock, self.metrics)

    async def run(self) -> None:
        """Until the clock stops the loop."""
        with pytest.raises(asyncio.CancelledError):
            await self.collector.run()

    def served(self, name: str) -> dict[str, float]:
        return named(scrape(self.metrics.registry), name)


async def test_the_loop_looks_at_the_configured_pace_and_stores_every_look():
    parts = Parts(FakeNvml("matmul"), ticks=4, interval="500ms")
    await parts.run()
    times = [row["time"].timestamp() for row in parts.sink.rows()]
    assert times == [1000.0, 1000.5, 1001.0, 1001.5]


async def test_the_whole_exposition_of_one_look():
    parts = Parts(FakeNvml("matmul"))
    await parts.collector.look()
    served = scrape(parts.metrics.registry)
    who = {"gpu": UUID, "node": "node-1", "gpu_model": MODEL}
    assert {labels >= frozenset(who.items()) for (name, labels) in served if name.startswith("hw_")} == {True}
    told = {
        f"{name}{{{','.join(f'{key}={value}' for key, value in sorted(labels) if key not in who)}}}": value
        for (name, labels), value in served.items()
        if name.startswith("hw_") and value
    }
    assert told == {
        "hw_gpu_utilization_ratio{}": 1.0,
        "hw_gpu_memory_utilization_ratio{}": 0.34,
        "hw_gpu_memory_usage_bytes{}": 1059913728,
        "hw_gpu_memory_limit_bytes{}": 85520809984,
        "hw_power_watts{}": 668.561,
        "hw_power_limit_watts{}": 700.0,
        "hw_energy_joules_total{}": 10045.29,
        "hw_temperature_celsius{sensor=gpu}": 61,
        "hw_temperature_celsius{sensor=memory}": 53,
        "hw_gpu_clock_hertz{domain=sm}": 1335e6,
        "hw_gpu_clock_hertz{domain=memory}": 2619e6,
        "hw_gpu_clock_event_active{reason=sw_power_cap}": 1,
        "hw_gpu_clock_event_seconds_total{reason=sw_power_cap}": 9.639592896,
        "hw_gpu_io_bytes_total{direction=receive,link=pcie}": 991979272,
        "hw_gpu_io_bytes_total{direction=transmit,link=pcie}": 3470577004,
        "hw_gpu_processes{}": 1,
    }
    await parts.collector.close()


async def test_a_counter_that_wraps_between_looks_never_falls_on_the_metrics_page():
    nvml = FakeNvml("idle")
    parts = Parts(nvml)
    told = []
    for raw in (2**32 - 7, 3, 10, 4):
        nvml.field_values["NVML_FI_DEV_PCIE_COUNT_RX_BYTES"] = raw
        await parts.collector.look()
        told.append(parts.served("hw_gpu_io_bytes_total")["direction=receive,link=pcie"])
        parts.clock.time += 1
    assert told == [2**32 - 7, 2**32 + 3, 2**32 + 10, 2 * 2**32 + 4]
    await parts.collector.close()


async def test_what_cannot_be_read_says_why_and_moves_when_it_can():
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NO_PERMISSION
    parts = Parts(nvml)
    told = []
    for _ in range(2):
        await parts.collector.look()
        fields = parts.served("tidegauge_gpu_field_available")
        told.append({key: value for key, value in fields.items() if key.startswith("field=utilization_ratio,")})
        nvml.errors.clear()
        parts.clock.time += 300
    assert told == [
        {"field=utilization_ratio,reason=no_permission": 0},
        {"field=utilization_ratio,reason=": 1},
    ]
    await parts.collector.close()


async def test_no_driver_is_a_normal_state():
    nvml = FakeNvml()
    nvml.errors["nvmlInit"] = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    parts = Parts(nvml, ticks=50)
    await parts.run()
    assert parts.served("tidegauge_gpu_collector_up") == {"reason=no_driver": 0}
    assert (parts.sink.rows(), parts.collector.statuses(), nvml.calls["nvmlInit"]) == ([], [], 1)


async def test_switched_off_it_does_not_touch_the_driver():
    nvml = FakeNvml()
    parts = Parts(nvml, enabled=False)
    await parts.collector.run()
    assert (parts.served("tidegauge_gpu_collector_up"), nvml.calls) == ({"reason=disabled": 0}, {})


async def test_a_lost_gpu_is_counted_and_its_gauges_go_while_its_xids_stay():
    nvml = FakeNvml("matmul", gpus=2)
    parts = Parts(nvml)
    await parts.collector.look()
    nvml.lost = {1}
    parts.clock.time += 1
    await parts.collector.look()
    served = scrape(parts.metrics.registry)
    assert {dict(labels)["gpu"] for name, labels in served if name == "hw_power_watts"} == {uuid(0)}
    assert {dict(labels)["gpu"] for name, labels in served if name == "hw_gpu_xid_events_total"} == {uuid(0), uuid(1)}
    assert served[("tidegauge_gpu_collect_errors_total", frozenset({("gpu", uuid(1))}))] == 1
    up = {(dict(labels)["gpu"], dict(labels)["reason"]): v for (n, labels), v in served.items() if "device_up" in n}
    assert up == {(uuid(0), ""): 1, (uuid(1), "lost"): 0}
    assert [status["problem"] for status in parts.collector.statuses()] == ["", "lost"]
    await parts.collector.close()


@pytest.mark.parametrize(
    ("error", "late", "reason"),
    [
        pytest.param(StoreOverloaded("full"), None, "overloaded", id="queue full"),
        pytest.param(StoreUnavailable("closed"), None, "unavailable", id="closed"),
        pytest.param(None, StoreUnavailable("disk full"), "unavailable", id="commit failed"),
    ],
)
async def test_rows_that_the_store_does_not_take_are_counted_and_still_served(
    error: Exception | None, late: Exception | None, reason: str
):
    parts = Parts(FakeNvml("matmul"))
    parts.sink.error, parts.sink.late = error, late
    await parts.collector.look()
    assert parts.served("tidegauge_gpu_rows_dropped_total") == {f"reason={reason}": 1}
    assert parts.served("hw_power_watts") == {"": 668.561}
    await parts.collector.close()


class Hanging:
    """A driver that does not answer until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.reads = 0

    def read(self, now: float) -> Look:
        self.reads += 1
        self.go.wait(20)
        return Look((Reading("GPU-1", "n", "m", power_watts=1.0),))

    def close(self) -> None:
        pass


async def test_a_driver_that_hangs_is_told_and_comes_back():
    source, metrics = Hanging(), instruments()
    collector = GpuCollector(GpuSettings(deadline=0.05), source, Kept(), HandClock(), metrics)
    for _ in range(3):
        await collector.look()
    assert collector.state()["reason"] == "hung"
    source.go.set()
    await asyncio.sleep(0.05)
    await collector.look()
    assert source.reads == 1, "looks piled up behind the one that hung"
    assert (collector.state()["up"], named(scrape(metrics.registry), "hw_power_watts")) == (True, {"": 1.0})
    await collector.close()


async def test_a_driver_that_hangs_does_not_hold_up_the_end():
    source = Hanging()
    collector = GpuCollector(GpuSettings(deadline=0.05), source, Kept(), HandClock(), instruments())
    await collector.look()
    started = time.perf_counter()
    await collector.close()
    await collector.close()
    assert time.perf_counter() - started < 2
    source.go.set()


class Broken:
    """A source with a fault that nobody expected."""

    def read(self, now: float) -> Look:
        raise RuntimeError("fault")

    def close(self) -> None:
        pass


async def test_an_unexpected_error_is_counted_and_the_loop_goes_on():
    metrics = instruments()
    collector = GpuCollector(GpuSettings(), Broken(), Kept(), HandClock(ticks=3), metrics)
    with pytest.raises(asyncio.CancelledError):
        await collector.run()
    served = scrape(metrics.registry)
    assert served[("tidegauge_loop_errors_total", frozenset({("loop", "gpu")}))] == 3
    assert served[("tidegauge_gpu_collector_up", frozenset({("reason", "error")}))] == 0


async def test_statuses_tell_what_is_missing_and_whose_processes_run():
    parts = Parts(FakeNvml("matmul"))
    await parts.collector.look()
    assert parts.collector.statuses() == [
        {
            "gpu": UUID,
            "node": "node-1",
            "gpu_model": MODEL,
            "up": True,
            "problem": "",
            "mig": False,
            "missing": {"nvlink_receive_bytes": "not_supported", "nvlink_transmit_bytes": "not_supported"},
            "processes": [{"pid": 402, "memory_bytes": 1050673152, "pod": "", "pod_uid": ""}],
        }
    ]
    await parts.collector.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("500ms", 0.5), ("2m", 120.0), (2, 2.0), ("1.5", 1.5)],
    ids=["seconds", "milliseconds", "minutes", "number", "text of a number"],
)
def test_an_interval_is_a_duration(text: object, seconds: float):
    assert GpuSettings.model_validate({"interval": text}).interval == seconds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"interval": "soon"}, "'soon' is no duration; write '1s', '500ms' or '5m'", id="no duration"),
        pytest.param({"interval": "1ms"}, "greater than or equal to 0.1", id="too short"),
        pytest.param({"intervall": "1s"}, "Extra inputs are not permitted", id="unknown key"),
        pytest.param({"enabled": "perhaps"}, "'auto', 'true' or 'false'", id="unknown word"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        GpuSettings.model_validate(settings)


@pytest.mark.parametrize(
    ("word", "kept"), [(True, "true"), (False, "false"), ("auto", "auto")], ids=["yes", "no", "auto"]
)
def test_bare_words_of_yaml_are_understood(word: object, kept: str):
    assert GpuSettings.model_validate({"enabled": word}).enabled == kept
