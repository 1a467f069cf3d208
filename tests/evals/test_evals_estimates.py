"""Estimates: known values, and intervals that cover what they promise."""

import math
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evals.estimates import Estimator, estimate, summarize

REPETITIONS = 1_000
# Three standard deviations of a share of 0.95 in REPETITIONS; below that the interval does not keep its promise.
LEAST = 0.95 - 3 * (0.95 * 0.05 / REPETITIONS) ** 0.5


def test_a_plain_share_has_wilsons_interval() -> None:
    # Agresti and Coull (1998), n = 10, two successes.
    found = estimate([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0567, 0.5098), abs=1e-4)
    assert (found.n, found.clusters, found.estimator) == (10, 10, Estimator.WILSON)


def test_other_values_have_students_interval() -> None:
    found = estimate([3.0, 4.0, 8.0])
    assert found is not None
    # 5 ± 4.3027 · 2.6458 / √3
    assert (found.mean, found.low, found.high) == pytest.approx((5.0, -1.5724, 11.5724), abs=1e-4)


def test_equal_probabilities_change_nothing() -> None:
    values = [0, 1, 1, 0, 1]
    assert estimate(values, [0.05] * 5) == estimate(values)


def test_weights_undo_the_sampling() -> None:
    # One in ten of the zeros was looked at, and each of the ones.
    found = estimate([0, 0, 1], [0.1, 0.1, 1.0])
    assert found is not None
    assert found.mean == pytest.approx(1 / 21)


@pytest.mark.parametrize("values", [[0] * 7, [1] * 7], ids=["zeros", "ones"])
def test_seven_of_a_kind_do_not_prove_that_there_is_no_other(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.high - found.low == pytest.approx(0.354, abs=1e-3)


@pytest.mark.parametrize("values", [[], [math.nan], [None]], ids=["none", "nan", "null"])
def test_of_nothing_there_is_no_estimate(values: list[Any]) -> None:
    assert estimate(values) is None


def test_one_length_says_nothing_about_the_spread() -> None:
    found = estimate([42.0])
    assert found is not None
    assert (found.mean, found.n) == (42.0, 1)
    assert math.isnan(found.low)


def test_a_session_counts_as_one_however_often_it_says_the_same() -> None:
    alike = estimate([1, 1, 1, 1, 0, 0, 0, 0], sessions=["a"] * 4 + ["b"] * 4)
    apart = estimate([1, 1, 1, 1, 0, 0, 0, 0], sessions=[None] * 8)
    assert alike is not None
    assert apart is not None
    assert (alike.clusters, apart.clusters) == (2, 8)
    assert alike.high - alike.low > 1.3 * (apart.high - apart.low)


def test_groups_are_those_of_the_table_nulls_included() -> None:
    table = pa.table(
        {
            "value": [1.0, 0.0, 1.0, None, 0.5, 3.0],
            "tenant": ["bank", None, "bank", "games", "games", "None"],
            "session_id": ["s", "s", None, "s", "s", "s"],
        }
    )
    rows = summarize(table, ["tenant"]).to_pylist()
    found = {row["tenant"]: (row["mean"], row["n"]) for row in rows}
    assert found == {"bank": (1.0, 2), None: (0.0, 1), "games": (0.5, 1), "None": (3.0, 1)}


def test_the_same_session_in_two_groups_is_two() -> None:
    table = pa.table({"value": [1.0, 0.0], "tenant": ["a", "b"], "session_id": ["s", "s"]})
    assert summarize(table, ["tenant"]).column("clusters").to_pylist() == [1, 1]


def test_groups_of_nothing_keep_their_columns() -> None:
    table = pa.table({"value": pa.array([], pa.float64()), "tenant": pa.array([], pa.string())})
    found = summarize(table, ["tenant"])
    assert found.num_rows == 0
    assert found.column_names[:4] == ["tenant", "mean", "ci_low", "ci_high"]


def test_a_probability_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="not within 0"):
        estimate([1.0], [0.0])


def coverage(draw: Any, truth: float) -> float:
    """Share of intervals that hold the truth; all repetitions are groups of one table."""
    rng = np.random.default_rng(20260501)
    parts = []
    for repetition in range(REPETITIONS):
        part = draw(rng)
        parts.append(pa.table(part | {"group": pa.array([repetition] * len(part["value"]))}))
    found = summarize(pa.concat_tables(parts), ["group"])
    low, high = found.column("ci_low").to_numpy(), found.column("ci_high").to_numpy()
    return float(((low <= truth) & (truth <= high)).mean())


def sampled(rng: np.random.Generator, value: Any, probability: Any) -> dict[str, Any]:
    taken = rng.random(len(value)) < probability
    return {"value": value[taken], "sampling_probability": probability[taken]}


def test_a_rare_share_is_covered() -> None:
    assert coverage(lambda rng: {"value": (rng.random(200) < 0.03).astype(float)}, 0.03) >= LEAST


def test_a_biased_sample_is_covered() -> None:
    def draw(rng: np.random.Generator) -> dict[str, Any]:
        # Failures are looked at always, the rest at a fifth; ones are three times as frequent among failures.
        failed = rng.random(1_500) < 0.2
        value = (rng.random(1_500) < np.where(failed, 0.3, 0.1)).astype(float)
        return sampled(rng, value, np.where(failed, 1.0, 0.2))

    assert coverage(draw, 0.2 * 0.3 + 0.8 * 0.1) >= LEAST


def test_sessions_that_are_alike_are_covered() -> None:
    def draw(rng: np.random.Generator) -> dict[str, Any]:
        mood = rng.beta(1, 4, 60)
        session = np.repeat(np.arange(60), 6)
        value = (rng.random(360) < mood[session]).astype(float)
        return {"value": value, "session_id": [str(each) for each in session]}

    assert coverage(draw, 0.2) >= LEAST


def test_continuous_scores_are_covered() -> None:
    assert coverage(lambda rng: {"value": rng.beta(2, 5, 60)}, 2 / 7) >= LEAST


def test_a_million_scores_in_groups_take_seconds() -> None:
    rng = np.random.default_rng(1)
    n = 1_000_000
    table = pa.table({"value": rng.random(n), "g": rng.integers(0, 50, n), "session_id": rng.integers(0, n // 3, n)})
    began = time.perf_counter()
    assert summarize(table, ["g"]).num_rows == 50
    assert time.perf_counter() - began < 20
