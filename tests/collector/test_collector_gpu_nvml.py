"""NVML read, at the boundary: a library that answers what a real H100 answered."""

import time
from pathlib import Path

import pynvml
import pytest
from gpu_fake_nvml import MODEL, UUID, FakeNvml, uuid

from catalog.gpu import gpu_readings, xids
from collector.gpu.nvml import NvmlSource
from collector.gpu.pods import pod_of
from collector.gpu.readings import GpuProcess, Reading
from collector.gpu.settings import GpuSettings

READABLE = {entry.name for entry in gpu_readings() if entry.name != "processes"} | {"running"}
NVLINK = {"nvlink_receive_bytes": "not_supported", "nvlink_transmit_bytes": "not_supported"}
AVAILABLE = dict.fromkeys(READABLE, "") | NVLINK
QUIET = dict.fromkeys(
    (
        "sw_power_cap",
        "applications_clocks_setting",
        "gpu_idle",
        "hw_slowdown",
        "sync_boost",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "display_clock_setting",
        "other",
    ),
    0,
)


def source(nvml: FakeNvml, proc: Path = Path("/nonexistent")) -> NvmlSource:
    return NvmlSource(nvml, GpuSettings(), "node-1", proc=proc)


def second_look(nvml: FakeNvml) -> Reading:
    """GPM needs two looks."""
    reader = source(nvml)
    reader.read(0.0)
    reading = reader.read(1.0).readings[0]
    reader.close()
    return reading


def missing(reading: Reading) -> dict[str, str]:
    return {name: why for name, why in reading.availability.items() if why}


def test_a_look_at_a_busy_h100_gives_every_value_in_our_units():
    assert second_look(FakeNvml("matmul")) == Reading(
        gpu=UUID,
        node="node-1",
        gpu_model=MODEL,
        mig=False,
        utilization_ratio=1.0,
        memory_utilization_ratio=0.34,
        memory_usage_bytes=1059913728,
        memory_limit_bytes=85520809984,
        power_watts=668.561,
        power_limit_watts=700.0,
        energy_joules=10045.29,
        temperature_celsius=61,
        memory_temperature_celsius=53,
        sm_clock_hertz=1335e6,
        memory_clock_hertz=2619e6,
        clock_events=QUIET | {"sw_power_cap": 1},
        sw_power_cap_seconds=9.639592896,
        sync_boost_seconds=0.0,
        sw_thermal_slowdown_seconds=0.0,
        hw_thermal_slowdown_seconds=0.0,
        hw_power_brake_slowdown_seconds=0.0,
        ecc_correctable=0,
        ecc_uncorrectable=0,
        ecc_correctable_lifetime=0,
        ecc_uncorrectable_lifetime=0,
        pcie_replays=0,
        remapped_rows_correctable=0,
        remapped_rows_uncorrectable=0,
        remapped_rows_pending=0,
        remapped_rows_failed=0,
        pcie_receive_bytes=991979272,
        pcie_transmit_bytes=3470577004,
        pcie_receive_bytes_per_second=16.45032758055664 * 2**20,
        pcie_transmit_bytes_per_second=5.658392835366185 * 2**20,
        sm_active_ratio=0.9567600003308668,
        sm_occupancy_ratio=14.139139010332386 / 100,
        tensor_active_ratio=92.84014490076679 / 100,
        dram_active_ratio=26.187531685780435 / 100,
        running=(GpuProcess(402, 1050673152),),
        xids={},
        availability=AVAILABLE,
    )


def test_the_first_look_lacks_profiling_values_and_does_not_call_them_unavailable():
    reading = source(FakeNvml()).read(0.0).readings[0]
    assert (reading.sm_active_ratio, "sm_active_ratio" in reading.availability) == (None, False)


def test_all_fields_come_in_one_call_a_look():
    nvml = FakeNvml()
    second_look(nvml)
    assert nvml.calls["nvmlDeviceGetFieldValues"] == 2


def test_the_getters_that_a_field_makes_needless_are_not_called():
    nvml = FakeNvml()
    second_look(nvml)
    needless = ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPcieThroughput")
    assert [nvml.calls[name] for name in needless] == [0, 0, 0]


def test_an_unsupported_field_is_asked_again_only_after_a_while():
    nvml = FakeNvml()
    reader = source(nvml)
    for now in (0.0, 1.0, 299.0, 300.0, 301.0):
        reader.read(now)
    asked = ["NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX" in fields for fields in nvml.asked_fields]
    assert asked == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(pynvml.NVML_ERROR_NOT_SUPPORTED, "not_supported", id="not supported"),
        pytest.param(pynvml.NVML_ERROR_NO_PERMISSION, "no_permission", id="no permission"),
        pytest.param(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "driver_too_old", id="function not found"),
        pytest.param(pynvml.NVML_ERROR_UNKNOWN, "error", id="unknown"),
    ],
)
def test_a_call_that_fails_costs_only_its_values(code: int, reason: str):
    nvml = FakeNvml()
    nvml.errors["nvmlDeviceGetUtilizationRates"] = code
    reading = second_look(nvml)
    lost = {"utilization_ratio": reason, "memory_utilization_ratio": reason}
    assert (missing(reading), reading.utilization_ratio) == (NVLINK | lost, None)


def test_a_field_that_the_driver_does_not_know_yet_costs_only_its_value():
    nvml = FakeNvml()
    nvml.field_errors["NVML_FI_DEV_MEMORY_TEMP"] = pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert missing(second_look(nvml)) == NVLINK | {"memory_temperature_celsius": "driver_too_old"}


def test_a_profiling_metric_that_fails_costs_only_its_value():
    nvml = FakeNvml("matmul")
    nvml.metric_errors["NVML_GPM_METRIC_DRAM_BW_UTIL"] = pynvml.NVML_ERROR_UNKNOWN
    reading = second_look(nvml)
    assert missing(reading) == NVLINK | {"dram_active_ratio": "error"}
    assert reading.sm_active_ratio == 0.9567600003308668


def test_profiling_that_only_administrators_may_use_is_named_so_and_left_alone():
    nvml = FakeNvml()
    nvml.errors["nvmlGpmSampleGet"] = pynvml.NVML_ERROR_NO_PERMISSION
    profiled = {entry.name for entry in gpu_readings() if entry.gpm}
    assert missing(second_look(nvml)) == NVLINK | dict.fromkeys(profiled, "no_permission")
    assert nvml.calls["nvmlGpmSampleGet"] == 1


def test_power_falls_back_to_the_average_where_the_driver_lacks_the_instant():
    nvml = FakeNvml("matmul")
    nvml.field_errors["NVML_FI_DEV_POWER_INSTANT"] = pynvml.NVML_ERROR_INVALID_ARGUMENT
    reading = second_look(nvml)
    assert (reading.power_watts, reading.availability["power_watts"]) == (694.626, "")


OLD_DRIVER = (
    "nvmlDeviceGetFieldValues",
    "nvmlGpmQueryDeviceSupport",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMigMode",
    "nvmlEventSetCreate",
)


@pytest.mark.parametrize("binding", [False, True], ids=["driver lacks them", "binding lacks them"])
def test_an_old_driver_gives_what_it_has(binding: bool):
    nvml = FakeNvml("matmul")
    if binding:
        nvml.absent.update(OLD_DRIVER)
    else:
        nvml.errors.update(dict.fromkeys(OLD_DRIVER, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    reading = second_look(nvml)
    without = {entry.name for entry in gpu_readings() if entry.field or entry.gpm} - {"power_watts", "energy_joules"}
    without.add("xid_errors")
    assert missing(reading) == dict.fromkeys(without, "driver_too_old")
    assert (reading.power_watts, reading.energy_joules, reading.clock_events) == (
        694.626,
        9975.944,
        QUIET | {"sw_power_cap": 1},
    )


def test_memory_of_an_old_driver_counts_what_the_driver_reserves():
    nvml = FakeNvml()
    nvml.absent.add("nvmlMemory_v2")
    assert second_look(nvml).memory_usage_bytes == 503316480


def test_mig_is_named_as_the_reason():
    nvml = FakeNvml()
    nvml.mig = 1
    nvml.errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    nvml.errors["nvmlGpmSampleGet"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    reading = second_look(nvml)
    assert reading.mig is True
    assert {reading.availability[name] for name in ("utilization_ratio", "sm_active_ratio")} == {"mig"}


def test_no_driver_is_asked_again_after_a_while_and_found():
    nvml = FakeNvml()
    nvml.errors["nvmlInit"] = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    reader = source(nvml)
    looks = [reader.read(now) for now in (0.0, 1.0, 59.0)]
    assert ([look.reason for look in looks], nvml.calls["nvmlInit"]) == (["no_driver"] * 3, 1)
    nvml.errors.clear()
    look = reader.read(60.0)
    assert (look.reason, len(look.readings)) == ("", 1)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no_driver", id="not loaded"),
        pytest.param(pynvml.NVML_ERROR_NO_PERMISSION, "no_permission", id="no permission"),
        pytest.param(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "driver_mismatch", id="updated under us"),
        pytest.param(pynvml.NVML_ERROR_UNKNOWN, "error", id="unknown"),
    ],
)
def test_nvml_that_does_not_start_says_why(code: int, reason: str):
    nvml = FakeNvml()
    nvml.errors["nvmlInit"] = code
    assert source(nvml).read(0.0).reason == reason


def test_a_driver_without_gpus_is_let_go_of():
    nvml = FakeNvml(gpus=0)
    look = source(nvml).read(0.0)
    assert (look.reason, look.readings, nvml.open) == ("no_device", (), 0)


def test_a_gpu_lost_in_the_middle_leaves_the_other_and_comes_back():
    nvml = FakeNvml(gpus=2)
    reader = source(nvml)
    told = []
    for now, lost in [(0, set()), (1, {1}), (2, {1}), (6, {1}), (7, {1}), (11, {1}), (16, set()), (17, set())]:
        nvml.lost = lost
        look = reader.read(float(now))
        told.append(([reading.problem for reading in look.readings], look.failed))
    reader.close()
    gone = ["", "lost"]
    assert told == [
        (["", ""], ()),
        (gone, (uuid(1),)),
        (gone, ()),
        (gone, (uuid(1),)),  # 5 s later NVML is opened anew, in vain; the next pause is 10 s
        (gone, ()),
        (gone, ()),
        (["", ""], ()),
        (["", ""], ()),
    ]
    assert (nvml.open, nvml.samples) == (0, 0)


def test_a_driver_that_is_reloaded_is_found_again():
    nvml = FakeNvml()
    reader = source(nvml)
    reader.read(0.0)
    nvml.open = 0
    nvml.errors["nvmlInit"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    looks = [reader.read(1.0), reader.read(6.0)]
    assert [(look.reason, look.readings[0].problem) for look in looks] == [("", "driver"), ("no_driver", "driver")]
    nvml.errors.clear()
    assert reader.read(20.0).readings[0].problem == ""
    reader.close()


def test_a_gpu_that_is_found_but_fails_at_every_look_is_left_alone_for_longer_and_longer():
    nvml = FakeNvml()
    reader = source(nvml)
    reader.read(0.0)
    nvml.errors["nvmlDeviceGetFieldValues"] = pynvml.NVML_ERROR_RESET_REQUIRED
    tried = [now for now in range(1, 400) if reader.read(float(now)).failed]
    reader.close()
    assert tried == [1, 6, 16, 36, 76, 156, 316]


def wait_for_xids(reader: NvmlSource, expected: dict[str, int]) -> dict[str, int]:
    for step in range(200):
        found = dict(reader.read(1.0 + step).readings[0].xids or {})
        if sum(found.values()) == sum(expected.values()):
            return found
        time.sleep(0.01)
    return found


def test_xids_are_counted_by_code_and_unlisted_ones_together():
    nvml = FakeNvml()
    reader = source(nvml)
    reader.read(0.0)
    for code in (79, 13, 13, 4711, 4712):
        nvml.events.put((0, pynvml.nvmlEventTypeXidCriticalError, code))
    assert wait_for_xids(reader, expected := {"79": 1, "13": 2, "other": 2}) == expected
    reader.close()


def test_xids_are_still_told_of_a_gpu_that_fell_off_the_bus():
    nvml = FakeNvml()
    reader = source(nvml)
    reader.read(0.0)
    nvml.lost = {0}
    nvml.events.put((0, pynvml.nvmlEventTypeXidCriticalError, 79))
    assert wait_for_xids(reader, {"79": 1}) == {"79": 1}
    assert reader.read(300.0).readings[0].problem == "lost"
    reader.close()


def test_xid_events_that_cannot_be_had_are_missing_and_not_zero():
    nvml = FakeNvml()
    nvml.errors["nvmlEventSetCreate"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    reading = second_look(nvml)
    assert (reading.xids, reading.xid_errors, missing(reading)["xid_errors"]) == (None, None, "not_supported")


def test_closing_twice_or_before_the_first_look_does_nothing():
    nvml = FakeNvml()
    reader = source(nvml)
    reader.close()
    reader.read(0.0)
    reader.close()
    reader.close()
    assert (nvml.open, nvml.calls["nvmlShutdown"]) == (0, 1)


UID = "1b2c3d4e-0001-4002-8003-a1b2c3d4e5f6"


@pytest.mark.parametrize(
    ("cgroup", "hostname", "pod"),
    [
        pytest.param(f"0::/kubepods/burstable/pod{UID}/abc\n", "vllm-0\n", ("vllm-0", UID), id="cgroupfs"),
        pytest.param(
            f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-ab.scope\n",
            "vllm-0\n",
            ("vllm-0", UID),
            id="systemd",
        ),
        pytest.param(f"0::/kubepods/pod{UID}/abc\n", None, ("", UID), id="host name unreadable"),
        pytest.param("0::/user.slice/session-1.scope\n", "laptop\n", ("", ""), id="no pod"),
        pytest.param(None, None, ("", ""), id="gone"),
    ],
)
def test_a_process_is_traced_to_its_pod(tmp_path: Path, cgroup: str | None, hostname: str | None, pod: tuple[str, str]):
    (tmp_path / "402" / "root" / "etc").mkdir(parents=True)
    if cgroup is not None:
        (tmp_path / "402" / "cgroup").write_text(cgroup)
    if hostname is not None:
        (tmp_path / "402" / "root" / "etc" / "hostname").write_text(hostname)
    assert pod_of(tmp_path, 402) == pod


def test_a_gpus_processes_carry_their_pods(tmp_path: Path):
    (tmp_path / "402").mkdir()
    (tmp_path / "402" / "cgroup").write_text(f"0::/kubepods/pod{UID}/abc\n")
    reader = source(FakeNvml("matmul"), tmp_path)
    assert reader.read(0.0).readings[0].running == (GpuProcess(402, 1050673152, "", UID),)
    reader.close()


def test_every_listed_xid_names_its_cause():
    assert {xid.cause for xid in xids().values()} == {"application", "driver", "hardware", "unknown"}
