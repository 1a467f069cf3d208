"""The whole loop: rounds over stored values, findings, their end, and what a restart keeps."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from prometheus_client import CollectorRegistry

from catalog.instruments import Instruments
from evals.drift.findings import findings
from evals.drift.monitor import DriftMonitor
from evals.drift.settings import DriftSettings, SignalSettings
from evals.drift.state import Phase
from tests.drift_kit import T0, MemoryStore, StillClock, monitor, rows, run, seconds_after, traffic

RECORDING = Path(__file__).parents[1] / "data" / "drift" / "recording.parquet"
REFUSAL = SignalSettings(name="refusal", column="scores.refusal", by=("model", "tenant", "prompt_version"))
REFUSALS = DriftSettings(signals=(REFUSAL,), lag=0)
# The same in a tenth of the time.
QUICK = DriftSettings(signals=(REFUSAL,), lag=0, round=30, window=120, reference=600)


def recording() -> MemoryStore:
    table = parquet.read_table(RECORDING)
    names = ("tenant", "service", "model", "prompt_name", "prompt_version", "session_id")
    columns = {name: table.column(name).to_pylist() for name in names}
    time = table.column("seconds").to_numpy()

    def signal(name: str) -> pa.Table:
        known = rows(time, table.column(name), **columns)
        return known.filter(known.column("value").is_valid())

    return MemoryStore({"scores.refusal": signal("refusal"), "spans.output_tokens": signal("output_tokens")})


def found(drift: DriftMonitor) -> list[tuple[str, dict[str, str], str, str]]:
    return [(one["signal"], one["slice"], one["peak"], one["state"]) for one in findings(drift.current())]


async def test_the_recording_has_one_finding_which_names_tenant_version_start_and_end() -> None:
    store, settings = recording(), DriftSettings()
    drift = monitor(store, settings)
    await run(drift, settings, 0, 1080)
    seen = findings(drift.current())
    assert [(one["signal"], one["slice"], one["peak"], one["state"]) for one in seen] == [
        ("refusal", {"tenant": "bank", "prompt_name": "support", "prompt_version": "2"}, "confirmed", "resolved")
    ]
    one = seen[0]
    assert 360 <= seconds_after(one["start"]) < 420
    assert 600 <= seconds_after(one["end"]) < 660
    # 36 of 308 before, 69 of 192 after.
    assert one["effect"] == pytest.approx(69 / 192 - 36 / 308, abs=0.01)
    assert 0.1 < one["interval"][0] < one["effect"] < one["interval"][1] < 0.4
    assert one["evidence"]["predecessor"] == "1"
    assert one["evidence"]["distributions"]["reference"]["n"] == 308
    assert one["evidence"]["looks"][-1]["false_pages_per_30_days_needed"] < 1
    assert len(one["evidence"]["worst_samples"]) == 5


async def test_the_recorded_drift_is_known_within_two_minutes_and_gone_within_two_of_the_rollback() -> None:
    store, settings = recording(), DriftSettings()
    reports = await run(monitor(store, settings), settings, 0, 1080)
    changes = [(seconds_after(row["round_time"]), row["state"]) for row in store.tables["drift_results"]]
    assert min(time for time, state in changes if state == "confirmed") <= 480
    assert min(time for time, state in changes if state == "resolved") <= 720
    assert sum(len(report.changed) for report in reports) == 2


async def test_at_a_tighter_budget_the_recorded_drift_is_suspected_and_says_what_would_pay_for_it() -> None:
    store, settings = recording(), DriftSettings(false_pages_per_30_days=0.00001)
    drift = monitor(store, settings)
    await run(drift, settings, 0, 1080)
    one = findings(drift.current())[0]
    assert one["peak"] == "suspected"
    assert one["evidence"]["looks"][0]["false_pages_per_30_days_needed"] > 0.00001


async def test_without_a_budget_nothing_is_ever_confirmed() -> None:
    store, settings = recording(), DriftSettings(false_pages_per_30_days=0)
    drift = monitor(store, settings)
    await run(drift, settings, 0, 1080)
    assert [peak for _, _, peak, _ in found(drift)] == ["suspected"]


@pytest.mark.parametrize(("tenant", "start", "end"), [("retail", 200, 700), ("games", 400, 1000)], ids=str)
async def test_a_worse_prompt_of_any_tenant_at_any_time_is_named(tenant: str, start: float, end: float) -> None:
    rng = np.random.default_rng(1)
    table = traffic(
        rng, 1500,
        version=lambda name, time: "9" if name == tenant and start <= time < end else "8",
        share=lambda name, version, time: 0.55 if version == "9" else 0.2,
    )  # fmt: skip
    drift = monitor(MemoryStore({"scores.refusal": table}), REFUSALS)
    await run(drift, REFUSALS, 0, 1500)
    expected = {"tenant": tenant, "prompt_name": "support", "prompt_version": "9"}
    assert found(drift) == [("refusal", expected, "confirmed", "resolved")]
    one = findings(drift.current())[0]
    assert abs(seconds_after(one["start"]) - start) < 30
    assert abs(seconds_after(one["end"]) - end) < 30


async def test_a_new_version_that_changes_nothing_is_no_finding() -> None:
    rng = np.random.default_rng(2)
    table = traffic(rng, 1500, version=lambda name, time: "2" if time >= 600 else "1")
    store = MemoryStore({"scores.refusal": table})
    drift = monitor(store, REFUSALS)
    await run(drift, REFUSALS, 0, 1500)
    assert found(drift) == []
    assert "predecessor" in {row["comparison"] for row in store.tables["drift_results"]}


async def test_a_version_that_has_gone_is_looked_at_once_more() -> None:
    rng = np.random.default_rng(21)
    # Some 110 rows of the new version: between the looks at 60 and 120.
    table = traffic(
        rng, 1200, tenants={"bank": 1.0}, per_second=1, version=lambda name, time: "2" if 600 <= time < 710 else "1"
    )
    store = MemoryStore({"scores.refusal": table})
    await run(monitor(store, REFUSALS), REFUSALS, 0, 1200)
    looks = [row for row in store.tables["drift_results"] if row["comparison"] == "predecessor"]
    assert len(looks) == 2
    assert looks[0]["n_current"] < 90 < looks[-1]["n_current"] < 120


async def test_a_version_rolled_out_to_everybody_is_reported_once() -> None:
    rng = np.random.default_rng(3)
    table = traffic(
        rng, 1500,
        version=lambda name, time: "2" if time >= 600 else "1",
        share=lambda name, version, time: 0.6 if version == "2" else 0.2,
    )  # fmt: skip
    drift = monitor(MemoryStore({"scores.refusal": table}), REFUSALS)
    await run(drift, REFUSALS, 0, 1500)
    assert found(drift) == [("refusal", {"prompt_name": "support", "prompt_version": "2"}, "confirmed", "confirmed")]


async def test_a_version_that_was_there_from_the_start_is_the_baseline() -> None:
    rng = np.random.default_rng(4)
    # One request in 50 has always had version 2, and declines more.
    table = traffic(
        rng, 1800,
        version=lambda name, time: "2" if rng.random() < 0.02 else "1",
        share=lambda name, version, time: 0.8 if version == "2" else 0.2,
    )  # fmt: skip
    drift = monitor(MemoryStore({"scores.refusal": table}), REFUSALS)
    await run(drift, REFUSALS, 0, 1800)
    assert found(drift) == []


async def test_a_canary_is_compared_with_the_version_it_takes_traffic_from() -> None:
    rng = np.random.default_rng(5)

    def version(name: str, time: float) -> str:
        if name == "games":
            return "old"
        return "new" if time > 900 and rng.random() < 0.3 else "stable"

    table = traffic(rng, 1800, version=version, share=lambda name, version, time: 0.6 if version == "new" else 0.2)
    drift = monitor(MemoryStore({"scores.refusal": table}), REFUSALS)
    await run(drift, REFUSALS, 0, 1800)
    seen = findings(drift.current())
    assert {one["evidence"]["predecessor"] for one in seen} == {"stable"}
    assert {one["slice"]["prompt_version"] for one in seen} == {"new"}


async def test_a_version_that_is_served_again_after_its_rollback_is_found_again() -> None:
    rng = np.random.default_rng(6)
    table = traffic(
        rng, 2400,
        version=lambda name, time: "2" if 600 <= time < 900 or time >= 1500 else "1",
        share=lambda name, version, time: 0.6 if version == "2" else 0.2,
    )  # fmt: skip
    drift = monitor(MemoryStore({"scores.refusal": table}), REFUSALS)
    await run(drift, REFUSALS, 0, 2400)
    assert [state.phase for state in drift.current() if state.peak is Phase.CONFIRMED] == [Phase.CONFIRMED]
    assert abs(seconds_after(findings(drift.current())[0]["start"]) - 1500) < 30


async def test_a_change_without_a_new_value_is_found_on_the_tenant_that_moved_and_ends() -> None:
    rng = np.random.default_rng(7)
    table = traffic(
        rng,
        3600,
        per_second=8,
        share=lambda name, version, time: 0.6 if name == "bank" and 1500 <= time < 2100 else 0.2,
    )
    drift = monitor(MemoryStore({"scores.refusal": table}), QUICK)
    await run(drift, QUICK, 0, 3600)
    # Suspicions are not budgeted: one in 1,000 rounds is expected.
    sure = [one for one in found(drift) if one[2] == "confirmed"]
    assert sure == [("refusal", {"tenant": "bank"}, "confirmed", "resolved")]
    one = findings(drift.current())[0]
    assert abs(seconds_after(one["start"]) - 1500) < 60
    assert 2100 < seconds_after(one["end"]) < 2100 + QUICK.window + 4 * QUICK.round


async def test_a_change_everywhere_is_reported_on_all_requests() -> None:
    rng = np.random.default_rng(8)
    table = traffic(rng, 2400, share=lambda name, version, time: 0.6 if time >= 1500 else 0.2)
    drift = monitor(MemoryStore({"scores.refusal": table}), QUICK)
    await run(drift, QUICK, 0, 2400)
    assert found(drift) == [("refusal", {}, "confirmed", "confirmed")]


async def test_traffic_that_moves_between_tenants_is_no_drift() -> None:
    rng = np.random.default_rng(9)
    share = {"bank": 0.6, "retail": 0.1, "games": 0.1}
    parts = [
        traffic(rng, 1500, tenants=tenants, share=lambda name, version, time: share[name])
        for tenants in ({"bank": 0.1, "retail": 0.6, "games": 0.3}, {"bank": 0.7, "retail": 0.2, "games": 0.1})
    ]
    moved = pa.array(parts[1].column("time").cast(pa.int64()).to_numpy() + 1_500_000_000).cast(
        pa.timestamp("us", tz="UTC")
    )
    parts[1] = parts[1].set_column(1, "time", moved)
    store = MemoryStore({"scores.refusal": pa.concat_tables(parts)})
    drift = monitor(store, QUICK)
    await run(drift, QUICK, 0, 3000)
    assert found(drift) == []
    # And all requests were tested while it happened.
    assert any(
        row["slice"] == "all" and 1500 < seconds_after(row["round_time"]) < 1700
        for row in store.tables["drift_results"]
    )


@pytest.mark.parametrize("kind", ["latency", "finish reason"])
async def test_numbers_and_categories_that_move_are_found(kind: str) -> None:
    rng = np.random.default_rng(10)
    time = np.sort(rng.random(8000) * 2400)
    later = time >= 1500
    if kind == "latency":
        value: Any = rng.lognormal(size=8000) * np.where(later, 3.0, 1.0)
    else:
        value = list(np.where(rng.random(8000) < np.where(later, 0.4, 0.1), "length", "stop"))
    signal = SignalSettings(name=kind, column="scores.anything", by=("model",))
    settings = QUICK.model_copy(update={"signals": (signal,)})
    drift = monitor(MemoryStore({"scores.anything": rows(time, value, model="tiny", service="bot")}), settings)
    await run(drift, settings, 0, 2000)
    seen = findings(drift.current())
    assert [(one["signal"], one["slice"], one["peak"]) for one in seen] == [(kind, {}, "confirmed")]
    assert abs(seconds_after(seen[0]["start"]) - 1500) < 60
    assert seen[0]["interval"][0] <= seen[0]["effect"] <= seen[0]["interval"][1]


async def test_values_that_are_no_numbers_and_constant_data_are_no_drift() -> None:
    rng = np.random.default_rng(11)
    time = np.sort(rng.random(4000) * 2400)
    wild = rng.normal(size=4000)
    wild[::7], wild[1::7], wild[2::7] = np.nan, np.inf, -np.inf
    signals = tuple(
        SignalSettings(name=name, column=f"scores.{name}", by=("model",)) for name in ("wild", "constant", "none")
    )
    settings = QUICK.model_copy(update={"signals": signals})
    tables = {
        "scores.wild": rows(time, wild, model="tiny"),
        "scores.constant": rows(time, np.full(4000, 7.0), model="tiny"),
        "scores.none": rows(time, pa.nulls(4000, pa.float64()), model="tiny"),
    }
    store = MemoryStore(tables)
    drift = monitor(store, settings)
    await run(drift, settings, 0, 2400)
    assert found(drift) == []
    assert {row["signal"] for row in store.tables["drift_results"]} == {"wild", "constant"}


async def test_small_slices_are_not_tested_and_counted() -> None:
    table = traffic(np.random.default_rng(12), 1500, per_second=0.05)
    reports = await run(monitor(MemoryStore({"scores.refusal": table}), QUICK), QUICK, 0, 1500)
    assert sum(report.tested for report in reports) == 0


async def test_an_effect_too_small_to_matter_is_not_found_in_a_large_sample() -> None:
    rng = np.random.default_rng(13)
    table = traffic(rng, 1500, per_second=60, share=lambda name, version, time: 0.234 if time >= 900 else 0.2)
    store = MemoryStore({"scores.refusal": table})
    drift = monitor(store, QUICK)
    await run(drift, QUICK, 900, 1100)
    assert min(row["p_value"] for row in store.tables["drift_results"]) < 1e-3
    assert found(drift) == []


@pytest.mark.parametrize("at", [600, 900], ids=str)
async def test_a_restart_changes_nothing(at: float) -> None:
    settings = DriftSettings()
    whole, broken = recording(), recording()
    one = monitor(whole, settings)
    await run(one, settings, 0, 1080)
    await run(monitor(broken, settings), settings, 0, at)
    two = monitor(broken, settings)
    await run(two, settings, at, 1080)
    assert found(two) == found(one)
    assert [row["state"] for row in broken.tables["drift_results"]] == [
        row["state"] for row in whole.tables["drift_results"]
    ]


async def test_a_restart_during_a_trailing_finding_ends_it_like_any_other() -> None:
    rng = np.random.default_rng(14)
    table = traffic(rng, 3000, share=lambda name, version, time: 0.6 if 1200 <= time < 1800 else 0.2)
    store = MemoryStore({"scores.refusal": table})
    await run(monitor(store, QUICK), QUICK, 0, 1500)
    drift = monitor(store, QUICK)
    await run(drift, QUICK, 1500, 3000)
    assert found(drift) == [("refusal", {}, "confirmed", "resolved")]
    rows_of_store = store.query("drift_memory", since=_moment(0), before=_moment(9999))
    assert [(one["slice"], one["state"]) for one in findings(rows_of_store)] == [({}, "resolved")]


def _moment(seconds: float) -> Any:
    from evals.drift.state import moment

    return moment(T0 + seconds)


async def test_the_same_rows_give_the_same_results() -> None:
    results = []
    for _ in range(2):
        store = recording()
        await run(monitor(store, DriftSettings()), DriftSettings(), 0, 720)
        results.append(store.tables["drift_results"])
    assert results[0] == results[1]


async def test_rows_that_come_after_their_window_are_counted() -> None:
    table = traffic(np.random.default_rng(15), 900)
    store = MemoryStore({"scores.refusal": table.slice(100)})
    drift = monitor(store, QUICK)
    await run(drift, QUICK, 0, 300)
    store.signals["scores.refusal"] = table
    reports = await run(drift, QUICK, 300, 420)
    assert [report.late for report in reports] == [100, 0, 0, 0]


async def test_a_round_that_fails_is_counted_and_the_next_one_comes() -> None:
    class Flaky(MemoryStore):
        failures = 2

        def signal_values(self, *arguments: Any) -> pa.Table:
            if self.failures:
                self.failures -= 1
                raise OSError("disk on fire")
            return super().signal_values(*arguments)

    store = Flaky({"scores.refusal": traffic(np.random.default_rng(16), 900)})
    metrics, clock = Instruments(CollectorRegistry()), StillClock(T0)
    drift = DriftMonitor(QUICK, store, store, clock, metrics, np.random.default_rng(0), T0)
    task = asyncio.create_task(drift.run())
    while clock.time < T0 + 600:  # noqa: ASYNC110 the loop under test waits on this clock
        await asyncio.sleep(0.01)
    task.cancel()
    value = metrics.registry.get_sample_value
    assert value("tidegauge_drift_rounds_total", {"outcome": "error"}) == 2
    assert value("tidegauge_drift_rounds_total", {"outcome": "ok"}) >= 10


async def test_requests_that_say_nothing_of_themselves_are_one_slice() -> None:
    rng = np.random.default_rng(17)
    time = np.sort(rng.random(4000) * 2400)
    value = (rng.random(4000) < np.where(time > 1500, 0.6, 0.2)).astype(float)
    drift = monitor(MemoryStore({"scores.refusal": rows(time, value)}), QUICK)
    await run(drift, QUICK, 0, 1800)
    assert found(drift) == [("refusal", {}, "confirmed", "confirmed")]
    assert {state.slice for state in drift.current()} == {"all"}
