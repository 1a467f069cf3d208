"""Means of scores, with what is needed to believe them: n, a 95 % interval, and how it was made.

Scores come from samples drawn with known, unequal probabilities, and those of one session are alike.  So a mean is
Hájek's: weighted by the inverse of the sampling probability, divided by the sum of the weights; its variance is that
of the linearised ratio, summed by session as ultimate clusters (Särndal, Swensson and Wretman, 1992, Model Assisted
Survey Sampling, 5.7 and 4.6), and its interval uses Student's t with one degree of freedom less than there are
sessions.  Shares (values of 0 and 1) get Wilson's interval (1927), with the effective number of scores in place of n
where there are weights or sessions (Korn and Graubard, 1998; Franco et al., 2019), because the variance of a share
near 0 says too little: seven zeros in a row do not prove that there are no ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
BAD_PROBABILITY = "a sampling probability is not within 0 (exclusive) to 1"
# Weights that differ by less than this are the same.
UNEQUAL = 1e-9


class Estimator(StrEnum):
    """How mean and interval were made."""

    WILSON = "wilson"  # a plain share
    WILSON_EFFECTIVE = "hajek_wilson"  # a share from weighted or clustered scores
    STUDENT = "hajek_t"  # any other value


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, which is NaN where one score, or one session, says nothing about it."""

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    estimator: Estimator


def estimate(
    values: Sequence[float] | Floats,
    probabilities: Sequence[float] | Floats | None = None,
    sessions: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> Estimate | None:
    """The mean of `values`; None of none.  Scores without a session (None) are each one of their own.

    >>> estimate([1, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    Estimate(mean=0.2, low=0.0566..., high=0.5098..., n=10, clusters=10, estimator=<Estimator.WILSON: 'wilson'>)
    """
    columns: dict[str, Any] = {"value": pa.array(values, pa.float64())}
    if probabilities is not None:
        columns["sampling_probability"] = pa.array(probabilities, pa.float64())
    if sessions is not None:
        columns["session_id"] = pa.array(sessions)
    rows = summarize(pa.table(columns), (), confidence).to_pylist()
    if not rows:
        return None
    row = rows[0]
    return Estimate(row["mean"], row["ci_low"], row["ci_high"], row["n"], row["clusters"], Estimator(row["estimator"]))


def summarize(scores: pa.Table, by: Sequence[str], confidence: float = 0.95) -> pa.Table:
    """One row a group of `by`, in its order: the group, `mean`, `ci_low`, `ci_high`, `n`, `clusters`, `estimator`.

    `scores` has `value`, each of `by`, and where known `sampling_probability` (null is 1) and `session_id`.  Rows
    without a value are left out.  `ci_low` and `ci_high` are NaN where a group has but one session or score.
    """
    scores = scores.filter(pc.is_finite(pc.fill_null(pc.cast(scores.column("value"), pa.float64()), float("nan"))))
    groups, keys = _groups(scores, by)
    if scores.num_rows == 0:
        empty = np.empty(0)
        return _result(keys, empty, empty, empty, empty, empty, [])
    value = scores.column("value").cast(pa.float64()).to_numpy()
    weight = 1.0 / _probabilities(scores)
    clusters = _clusters(scores, groups)
    return _estimates(keys, groups, clusters, value, weight, confidence)


def summarize_sums(sums: pa.Table, by: Sequence[str], confidence: float = 0.95) -> pa.Table:
    """As `summarize`, from sums that the store makes of scores (`Reads.score_sums`), one row a group of `by`."""
    if by:
        # By their text, as `summarize` does.
        ranks = [_ranks(sums.column(name)) for name in reversed(by)]
        sums = sums.take(pa.array(np.lexsort(ranks)))
    found = {name: sums.column(name).to_numpy() for name in sums.column_names if name not in by}
    if not ((found["weight_low"] >= 1 - 1e-12) & np.isfinite(found["weight_high"])).all():
        raise ValueError(BAD_PROBABILITY)
    total = found["weight"]
    mean = np.clip(found["weighted"] / total, found["low"], found["high"])
    off = found["centre"] - mean
    squares = found["squares"] + 2 * off * found["cross_sum"] + off**2 * found["cluster_weights"]
    # Rounding must not make a variance of nothing negative.
    squares = np.maximum(squares, 0) / total**2
    even = total / found["n"]
    groups = _Groups(
        n=found["n"],
        clusters=found["clusters"],
        mean=mean,
        low=found["low"],
        high=found["high"],
        squares=np.where(found["low"] == found["high"], 0.0, squares),
        kish=total**2 / found["cluster_weights"],
        unequal=np.maximum(np.abs(found["weight_low"] / even - 1), np.abs(found["weight_high"] / even - 1)) > UNEQUAL,
        binary=found["is_share"].astype(bool),
    )
    return _finished(sums.select(list(by)) if by else pa.table({"_": pa.nulls(sums.num_rows)}), groups, confidence)


@dataclass(frozen=True, slots=True)
class _Groups:
    """What an estimate needs to know of each group; `squares` is the sum of the squared residuals of its clusters."""

    n: Codes
    clusters: Codes
    mean: Floats
    low: Floats
    high: Floats
    squares: Floats
    kish: Floats
    unequal: NDArray[np.bool_]
    binary: NDArray[np.bool_]


def _estimates(
    keys: pa.Table, groups: Codes, clusters: Codes, value: Floats, weight: Floats, confidence: float
) -> pa.Table:
    size = keys.num_rows
    n = np.bincount(groups, minlength=size)
    total = np.bincount(groups, weight, size)
    mean = np.bincount(groups, weight * value, size) / total
    # Equal values have a mean that rounding must not move away from them.
    low_value, high_value = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low_value, groups, value)
    np.maximum.at(high_value, groups, value)
    mean = np.clip(mean, low_value, high_value)

    cluster_group = np.zeros(clusters.max() + 1, np.int64)
    cluster_group[clusters] = groups
    residual = np.bincount(clusters, weight * (value - mean[groups])) / total[cluster_group]
    cluster_weight = np.bincount(clusters, weight)
    found = _Groups(
        n=n,
        clusters=np.bincount(cluster_group, minlength=size),
        mean=mean,
        low=low_value,
        high=high_value,
        squares=np.bincount(cluster_group, residual**2, size).astype(float),
        kish=np.bincount(cluster_group, cluster_weight, size) ** 2
        / np.bincount(cluster_group, cluster_weight**2, size),
        # Equal weights cancel; their mean is each of them.
        unequal=np.bincount(groups, np.abs(weight / (total / n)[groups] - 1) > UNEQUAL, size) > 0,
        binary=np.bincount(groups, (value != 0) & (value != 1), size) == 0,
    )
    return _finished(keys, found, confidence)


def _finished(keys: pa.Table, groups: _Groups, confidence: float) -> pa.Table:
    mean, low_value, high_value = groups.mean, groups.low, groups.high
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = groups.clusters / (groups.clusters - 1) * groups.squares
    t = _t(groups.clusters - 1, confidence)
    half = t * np.sqrt(variance)

    in_unit = (low_value >= 0) & (high_value <= 1)
    simple = (groups.n == groups.clusters) & ~groups.unequal
    # Values of one kind have no variance to go by; that of any value in 0 to 1 is at most a share's.
    constant = in_unit & (low_value == high_value)
    share = groups.binary | constant
    effective = _effective(groups, variance, t, simple, confidence)
    wilson_low, wilson_high = _wilson(mean, effective, confidence)
    low = np.where(share, wilson_low, np.where(in_unit, np.maximum(mean - half, 0), mean - half))
    high = np.where(share, wilson_high, np.where(in_unit, np.minimum(mean + half, 1), mean + half))
    names = np.where(share, np.where(simple, Estimator.WILSON, Estimator.WILSON_EFFECTIVE), Estimator.STUDENT)
    return _result(keys, mean, low, high, groups.n, groups.clusters, names.tolist())


def _effective(groups: _Groups, variance: Floats, t: Floats, simple: NDArray[np.bool_], confidence: float) -> Floats:
    """How many independent, equal scores would say as much."""
    z = float(ndtri(0.5 + confidence / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_variance = groups.mean * (1 - groups.mean) / variance * (z / t) ** 2
    # A share of 0 or 1, or one session: no variance to go by, so as if each session were one score.
    usable = np.isfinite(by_variance) & (by_variance > 0)
    return np.where(simple, groups.n, np.where(usable, np.minimum(by_variance, groups.n), groups.kish))


def _wilson(share: Floats, n: Floats, confidence: float) -> tuple[Floats, Floats]:
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    with np.errstate(invalid="ignore"):  # what is no share has no such interval, and is not asked for it
        half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def _t(degrees: Codes, confidence: float) -> Floats:
    found = np.full(len(degrees), np.nan)
    found[degrees > 0] = stdtrit(degrees[degrees > 0].astype(float), 0.5 + confidence / 2)
    return found


def _probabilities(scores: pa.Table) -> Floats:
    if "sampling_probability" not in scores.column_names:
        return np.ones(scores.num_rows)
    found: Floats = pc.fill_null(scores.column("sampling_probability").cast(pa.float64()), 1.0).to_numpy()
    if not ((found > 0) & (found <= 1)).all():
        raise ValueError(BAD_PROBABILITY)
    return found


def _codes(column: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """A number a row for its value, nulls being a value, and the values by number."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _ranks(column: pa.ChunkedArray) -> Codes:
    """A number a row for its value, in the order of the values' texts."""
    codes, values = _codes(column)
    order = np.argsort(np.argsort(np.array([str(value) for value in values.to_pylist()]), kind="stable"))
    return order[codes].astype(np.int64) if len(codes) else codes


def _groups(scores: pa.Table, by: Sequence[str]) -> tuple[Codes, pa.Table]:
    """A number a row for its group, and the groups by number, sorted."""
    combined = np.zeros(scores.num_rows, np.int64)
    for name in by:
        ranks = _ranks(scores.column(name))
        if len(ranks):
            _, combined = np.unique(combined * (int(ranks.max()) + 1) + ranks, return_inverse=True)
    _, first, groups = np.unique(combined, return_index=True, return_inverse=True)
    if not by:
        return groups, pa.table({"_": pa.nulls(len(first))})
    return groups, scores.select(list(by)).take(first)


def _clusters(scores: pa.Table, groups: Codes) -> Codes:
    """A number a row for its session within its group; a row without a session is one of its own."""
    alone = np.arange(scores.num_rows, dtype=np.int64)
    if "session_id" not in scores.column_names:
        return alone
    column = scores.column("session_id")
    known = pc.is_valid(column).to_numpy()
    codes, values = _codes(column)
    keys = np.where(known, groups * (len(values) + 1) + codes, -1 - alone)
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _result(
    keys: pa.Table, mean: Floats, low: Floats, high: Floats, n: Any, clusters: Any, names: list[str]
) -> pa.Table:
    columns = {name: keys.column(name) for name in keys.column_names if name != "_"}
    found = {"mean": mean, "ci_low": low, "ci_high": high}
    columns |= {name: pa.array(column, pa.float64()) for name, column in found.items()}
    columns |= {name: pa.array(column, pa.int64()) for name, column in (("n", n), ("clusters", clusters))}
    columns["estimator"] = pa.array([str(name) for name in names], pa.string())
    return pa.table(columns)
