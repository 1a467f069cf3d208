"""The budget of false pages: what it adds up to, and that whole rounds keep it on streams without a change."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from evals.drift.budget import Budget, budget_of, look_share, suspected_look
from evals.drift.frame import Frame
from evals.drift.settings import MONTH, DriftSettings, SignalSettings
from evals.drift.state import Period, Round
from evals.drift.trailing import found, slices_tested
from tests.drift_kit import T0, MemoryStore, monitor, rows, run, traffic

BY = ("model", "tenant", "prompt_version")
SETTINGS = DriftSettings(signals=(SignalSettings(name="x", column="scores.x", by=BY, minimum_effect=1e-9),), lag=0)


@pytest.mark.parametrize("pages", [0.0, 0.1, 1.0, 20.0], ids=str)
def test_all_thresholds_of_a_month_add_up_to_no_more_than_the_budget(pages: float) -> None:
    settings = DriftSettings(false_pages_per_30_days=pages)
    budget = budget_of(settings)
    looks = sum(look_share(look) for look in range(1, 10_000))
    series = sum(budget.series_level(number) for number in range(1, 200_000))
    assert budget.trailing_level * MONTH / settings.round + series * looks <= pages + 1e-9


def test_what_a_series_may_spend_never_rises() -> None:
    budget = Budget(pages=1, rounds=43_200, series=60)
    levels = [budget.series_level(number) for number in range(1, 500)]
    assert levels == sorted(levels, reverse=True)
    assert [budget.look_level(1, look) for look in (1, 2, 3)] == pytest.approx([1 / 1440, 1 / 1440, 1 / 1440])


def test_a_series_is_suspected_by_chance_in_one_of_twenty_at_most() -> None:
    assert sum(suspected_look(look) for look in range(1, 10_000)) <= 0.05


@pytest.mark.parametrize(
    ("p_value", "level", "pages"), [(1e-4, 1e-3, 0.1), (1e-3, 1e-4, 10.0), (0.5, 1e-9, None), (0.1, 0.0, None)], ids=str
)
def test_a_finding_says_which_budget_would_have_paid_for_it(p_value: float, level: float, pages: float | None) -> None:
    needed = Budget(pages=1, rounds=43_200, series=60).pages_needed(p_value, level)
    assert needed == (None if pages is None else pytest.approx(pages))


@pytest.mark.parametrize("kind", ["rate", "skewed", "ties", "category", "conversations", "moving mix"])
def test_rounds_without_a_change_reject_no_more_often_than_their_level(kind: str) -> None:
    rng, repetitions, level = np.random.default_rng(20), 40, 0.05
    this = Round(T0 + 720, 12, Period(T0 + 600, T0 + 720), Period(T0, T0 + 600))
    budget = Budget(pages=2 * level, rounds=1.0, series=60)
    false = 0
    for _ in range(repetitions):
        frame = Frame(_unchanging(kind, rng), SETTINGS.signals[0])
        tested, _ = slices_tested(frame, SETTINGS, this, rng)
        assert len(tested) > 3
        false += any(one.confirmed for one in found(tested, budget, SETTINGS, this.window, rng))
    # Three standard errors above the level.
    assert false / repetitions <= level + 3 * np.sqrt(level * (1 - level) / repetitions)


def _unchanging(kind: str, rng: np.random.Generator) -> pa.Table:
    n = 1500
    time = np.sort(rng.random(n)) * 720
    tenant = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    columns = {"prompt_name": "p", "service": "s", "model": "m"}
    if kind == "moving mix":
        tenant = np.where((time > 600) & (rng.random(n) < 0.5), "a", tenant)
        value = rng.random(n) < np.where(tenant == "a", 0.7, 0.1)
    elif kind == "rate":
        value = rng.random(n) < 0.1
    elif kind == "skewed":
        value = rng.lognormal(sigma=1.5, size=n)
    elif kind == "ties":
        value = rng.poisson(1.0, n).astype(float)
    elif kind == "conversations":
        # Five turns each, alike; a conversation is short against a window.
        session = np.sort(rng.permutation(n)) // 5
        value = rng.normal(size=n // 5)[session] + rng.normal(size=n) * 0.3
        tenant = rng.choice(["a", "b"], n // 5)[session]
        columns["session_id"] = [str(one) for one in session]
    else:
        return rows(
            time,
            list(rng.choice(["stop", "length", "tool"], n, p=[0.8, 0.15, 0.05])),
            tenant=list(tenant),
            prompt_version="1",
            **columns,
        )
    version = list(rng.choice(["1", "2"], n))
    return rows(time, value.astype(float), tenant=list(tenant), prompt_version=version, **columns)


async def test_new_versions_that_change_nothing_are_confirmed_no_more_often_than_budgeted() -> None:
    tenants = {f"t{index}": 1 / 60 for index in range(60)}
    signal = SignalSettings(name="x", column="scores.x", by=("tenant", "prompt_version"), minimum_effect=1e-9)
    # The most a series can get: 0.05 for each of the first 30.
    settings = DriftSettings(
        signals=(signal,), lag=0, false_pages_per_30_days=6, round=120, maximum_slices=1, new_values_per_30_days=30
    )
    rng = np.random.default_rng(30)
    change = {name: rng.uniform(1500, 2000) for name in tenants}
    store = MemoryStore({"scores.x": traffic(rng, 3600, per_second=6, tenants=tenants, version=_versions(change))})
    await run(monitor(store, settings), settings, 1440, 3600)
    looks = [row for row in store.tables["drift_results"] if row["comparison"] == "predecessor"]
    series = len({row["slice"] for row in looks})
    confirmed = len({row["slice"] for row in looks if row["state"] == "confirmed"})
    assert series >= 50
    # Three standard errors above a Poisson count.
    assert confirmed <= 0.05 * series + 3 * np.sqrt(0.05 * series)


def _versions(change: dict[str, float]) -> Callable[[str, float], str]:
    return lambda name, time: "2" if time > change[name] else "1"


async def test_rounds_of_unchanging_traffic_at_the_default_budget_find_nothing() -> None:
    settings = DriftSettings(signals=SETTINGS.signals, lag=0, window=120, reference=1200)
    store = MemoryStore({"scores.x": traffic(np.random.default_rng(40), 7200, per_second=3)})
    drift = monitor(store, settings)
    reports = await run(drift, settings, 0, 7200)
    assert sum(report.tested for report in reports) > 300
    assert [row for row in store.tables["drift_results"] if row["state"] == "confirmed"] == []
