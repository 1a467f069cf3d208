"""Two-sample tests, their effect sizes and intervals; each is a function of arrays.

Sample sizes may be fractions: a weighted or clustered sample counts as the number of independent observations
that would say as much (`effective_size`, `design_effect`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 64
RESAMPLES = 200
# Relative standard error of an interquartile range, times the root of n, for normal data.
SPREAD_ERROR = 1.17
# Below this expected count a chi-square tail at 1e-6 is not to be trusted; each category is tested exactly then.
EXPECTED = 10.0


@dataclass(frozen=True)
class Effect:
    """An effect size, signed where the test knows a direction, with its 95 % interval."""

    size: float
    low: float
    high: float
    unit: str


# --- p-values ------------------------------------------------------------------------------------------------------


def ks_distance(reference: Floats, current: Floats, weights: Floats | None = None) -> float:
    """Largest distance between both empirical distributions; `weights` are the reference's."""
    points = np.unique(np.concatenate([reference, current]))
    return float(np.max(np.abs(_cdf(reference, weights, points) - _cdf(current, None, points)), initial=0.0))


def ks_p(distance: float, n_reference: float, n_current: float) -> float:
    """P-value of a Kolmogorov-Smirnov distance, as SciPy's `method="asymp"`; with ties it errs to the safe side."""
    size = max(round(n_reference * n_current / (n_reference + n_current)), 1)
    return float(np.clip(stats.kstwo.sf(distance, size), 0.0, 1.0))


def fisher_p(hits_reference: float, n_reference: float, hits_current: float, n_current: float) -> float:
    """Two-sided exact p-value of a 2x2 table: twice the smaller tail, so that either side alone keeps half the level.

    Fractions are rounded to whole counts, sizes downwards.
    """
    n0, n1 = int(n_reference), int(n_current)
    if n0 == 0 or n1 == 0:
        return 1.0
    x0, x1 = round(n0 * hits_reference / n_reference), round(n1 * hits_current / n_current)
    hits = np.arange(max(0, x0 + x1 - n0), min(n1, x0 + x1) + 1)
    # SciPy's hypergeom says the same and takes 30 times as long.
    chances = np.exp(_log_choose(n1, hits) + _log_choose(n0, x0 + x1 - hits) - _log_choose(n0 + n1, np.array(x0 + x1)))
    return float(min(1.0, 2.0 * min(chances[hits <= x1].sum(), chances[hits >= x1].sum())))


def g_statistic(reference: Floats, current: Floats) -> float:
    """Log-likelihood ratio of two rows of counts, twice."""
    table = np.stack([reference, current]).astype(float)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / max(table.sum(), 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(table > 0, table * np.log(table / expected), 0.0)
    return float(2.0 * terms.sum())


def category_p(reference: Floats, current: Floats) -> float:
    """P-value of two rows of counts over the same categories.

    The G-test with Williams' correction where every expected count is at least 10; else the smallest exact p-value
    of any category against the rest, times the number of categories.
    """
    seen = (reference + current) > 0
    reference, current = reference[seen], current[seen]
    kinds, n0, n1 = int(seen.sum()), float(reference.sum()), float(current.sum())
    if kinds < 2 or n0 == 0 or n1 == 0:
        return 1.0
    totals, n = reference + current, n0 + n1
    if float(totals.min()) * min(n0, n1) / n >= EXPECTED:
        correction = 1 + (n / n0 + n / n1 - 1) * (float((n / totals).sum()) - 1) / (6 * n * (kinds - 1))
        return float(stats.chi2.sf(g_statistic(reference, current) / correction, kinds - 1))
    each = [fisher_p(x0, n0, x1, n1) for x0, x1 in zip(reference, current, strict=True)]
    return min(1.0, min(each) * (1 if kinds == 2 else kinds))


def log_e_value(p: float) -> float:
    """Natural logarithm of the e-value that a p-value is worth.

    The mixture over k of the calibrators k p^(k-1): (1 - p + p ln p) / (p (ln p)^2); Vovk and Wang, "E-values:
    calibration, combination and applications", Annals of Statistics 49 (2021), equation 2.

    >>> round(log_e_value(1.5e-7), 2)
    10.2
    """
    if p >= 1.0 - 1e-9:
        return float(np.log(0.5))
    p = max(p, 1e-300)
    log_p = float(np.log(p))
    # Near 1 the numerator cancels; its series is (1-p)^2 / 2 + (1-p)^3 / 6.
    numerator = (1 - p) ** 2 / 2 + (1 - p) ** 3 / 6 if p > 0.99 else 1 - p + p * log_p
    return float(np.log(numerator) - log_p - 2 * np.log(-log_p))


def benjamini_hochberg(p_values: Floats, level: float) -> float:
    """Largest p-value to reject at a false discovery rate of `level`; negative if none is.

    With no change anywhere, P(any rejection) is at most `level` for independent and positively dependent tests.
    """
    ordered = np.sort(p_values)
    passing = np.flatnonzero(ordered <= level * np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
    return float(ordered[passing[-1]]) if len(passing) else -1.0


# --- effective sizes -----------------------------------------------------------------------------------------------


def effective_size(weights: Floats) -> float:
    """Number of equally weighted observations with the same variance of the mean (Kish)."""
    total = float(weights.sum())
    return total * total / float((weights * weights).sum()) if total > 0 else 0.0


def design_effect(values: Floats, clusters: Ints, sides: Ints) -> float:
    """Factor, at least 1, by which correlation within clusters lowers the effective sample size.

    `values` is (n,) or (n, k); `clusters` are whole numbers, negative where unknown (such a row stands alone);
    `sides` tells the two samples apart, whose difference is no correlation.  From the one-way ANOVA's intraclass
    correlation r: 1 + (m - 1) r, with m the mean cluster size that a row sees.
    """
    known = clusters >= 0
    if known.sum() < 2:
        return 1.0
    x = values.reshape(len(values), -1)[known]
    sides = sides[known]
    x = x - np.stack([np.bincount(sides, column) for column in x.T], 1)[sides] / np.bincount(sides)[sides, None]
    _, group = np.unique(clusters[known] * 2 + sides, return_inverse=True)
    sizes = np.bincount(group).astype(float)
    n, k = float(len(x)), float(len(sizes))
    if n - k < 1 or k < 3:
        return 1.0
    sums = np.stack([np.bincount(group, column) for column in x.T], 1)
    between = float(((sums * sums) / sizes[:, None]).sum())
    within = max(float((x * x).sum()) - between, 0.0) / (n - k)
    between /= k - 1
    typical = (n - float((sizes**2).sum()) / n) / (k - 1)
    scale = between + (typical - 1) * within
    correlation = float(np.clip((between - within) / scale, 0.0, 1.0)) if scale > 0 else 0.0
    seen = float((sizes**2).sum()) / n
    # Rows without a cluster are independent: they dilute the effect.
    return 1.0 + (seen - 1.0) * correlation * n / len(values)


# --- effects -------------------------------------------------------------------------------------------------------


def rate_effect(p0: float, n0: float, p1: float, n1: float) -> Effect:
    """Difference of two proportions, current minus reference, with Newcombe's hybrid score interval (method 10)."""
    l0, u0 = _wilson(p0, n0)
    l1, u1 = _wilson(p1, n1)
    difference = p1 - p0
    low = difference - float(np.hypot(p1 - l1, u0 - p0))
    high = difference + float(np.hypot(u1 - p1, p0 - l0))
    return Effect(difference, max(low, -1.0), min(high, 1.0), "share points")


def wasserstein(reference: Floats, current: Floats, weights: Floats | None = None) -> float:
    """Area between both distribution functions, in the signal's own unit; `weights` are the reference's."""
    points = np.unique(np.concatenate([reference, current]))
    gap = np.abs(_cdf(reference, weights, points) - _cdf(current, None, points))
    return float((gap[:-1] * np.diff(points)).sum())


def spread(values: Floats) -> float:
    """Robust standard deviation: the interquartile range over 1.349; of data that rarely move, what they do move by.

    Never zero: data that never move are measured in their own size.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    for candidate in ((high - low) / 1.349, float(np.mean(np.abs(values - middle))), abs(middle)):
        if candidate > 0:
            return float(candidate)
    return 1.0


def number_effect(
    reference: Floats, current: Floats, weights: Floats, n0: float, n1: float, rng: np.random.Generator
) -> Effect:
    """Wasserstein distance in spreads of the reference, negative if the mean fell.

    Unlike a difference of means or ranks it sees a change of spread, too.  It is taken over at most 64 bins between
    the pooled 0.5 % and 99.5 % quantiles, so that one wild value is no effect.  The interval is from a bootstrap,
    whose distances are too long by the noise: its low end is the basic one (2 d - q), its high end the percentile, so
    that both err to the safe side.
    """
    edges = _edges(np.concatenate([reference, current]))
    counts0, counts1 = bin_counts(reference, edges, weights), bin_counts(current, edges)
    centres, scale = _centres(reference, current, edges), spread(reference)
    steps = np.diff(centres)

    def distances(share0: Floats, share1: Floats) -> Floats:
        gap = np.abs(np.cumsum(share0, -1) - np.cumsum(share1, -1))[..., :-1]
        return np.asarray((gap * steps).sum(-1) / scale)

    share0, share1 = counts0 / counts0.sum(), counts1 / counts1.sum()
    size = float(distances(share0, share1))
    low, high = _interval(size, distances(*_resampled(share0, share1, n0, n1, rng)))
    of_scale = 1.96 * SPREAD_ERROR * size / float(np.sqrt(max(n0, 1.0)))
    low, high = max(0.0, size - float(np.hypot(size - low, of_scale))), size + float(np.hypot(high - size, of_scale))
    if float((share1 * centres).sum()) < float((share0 * centres).sum()):
        size, low, high = -size, -high, -low
    return Effect(size, low, high, "reference spreads")


def js_distance(share0: Floats, share1: Floats) -> Floats:
    """Jensen-Shannon distance, base 2, over the last axis: 0 for the same shares, 1 for none in common."""
    middle = (share0 + share1) / 2

    def divergence(share: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(share > 0, share * np.log2(share / middle), 0.0).sum(-1))

    return np.sqrt(np.clip((divergence(share0) + divergence(share1)) / 2, 0.0, 1.0))


def category_effect(counts0: Floats, counts1: Floats, rng: np.random.Generator) -> Effect:
    """Jensen-Shannon distance with an interval as for numbers; it has no direction."""
    share0, share1 = counts0 / counts0.sum(), counts1 / counts1.sum()
    size = float(js_distance(share0, share1))
    resampled = js_distance(*_resampled(share0, share1, counts0.sum(), counts1.sum(), rng))
    low, high = _interval(size, resampled)
    return Effect(size, low, min(high, 1.0), "Jensen-Shannon distance")


# --- since when ----------------------------------------------------------------------------------------------------


def change_point(scores: Floats, least: int = 5) -> int:
    """Index of the first row after the most likely single change of the mean; rows in the order of time.

    The maximum over the split of the Gaussian log-likelihood ratio.  0 if there are too few rows to split.
    """
    n = len(scores)
    if n < 2 * least:
        return 0
    before = np.arange(1, n, dtype=float)
    gap = np.cumsum(scores - scores.mean())[:-1]
    gain = gap * gap / (before * (n - before))
    gain[: least - 1] = gain[n - least :] = -1.0
    return int(np.argmax(gain)) + 1


# --- helpers -------------------------------------------------------------------------------------------------------


def bin_counts(values: Floats, edges: Floats, weights: Floats | None = None) -> Floats:
    """Weight in each bin; the first and the last bin are open."""
    places = np.searchsorted(edges, values, side="right")
    return np.bincount(places, weights, minlength=len(edges) + 1).astype(float)


def _edges(pooled: Floats) -> Floats:
    """Inner edges of at most 64 bins of equal weight, where possible; few distinct values get a bin each."""
    distinct = np.unique(pooled)
    if len(distinct) <= BINS:
        return np.asarray((distinct[1:] + distinct[:-1]) / 2)
    return np.unique(np.quantile(pooled, np.linspace(0.005, 0.995, BINS - 1)))


def _centres(reference: Floats, current: Floats, edges: Floats) -> Floats:
    """Where each bin's values lie on average, pooled; the open bins at their inner edge at most."""
    pooled = np.concatenate([reference, current])
    counts, sums = bin_counts(pooled, edges), bin_counts(pooled, edges, pooled)
    if len(edges) == 0:
        return np.zeros(1)
    inner = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    centres = np.where(counts > 0, sums / np.maximum(counts, 1e-300), inner)
    if len(edges) == BINS - 1:
        centres[0], centres[-1] = edges[0], edges[-1]
    return np.maximum.accumulate(centres)


def _cdf(values: Floats, weights: Floats | None, points: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    places = np.searchsorted(values[order], points, side="right")
    if weights is None:
        return np.asarray(places / len(values))
    cumulated = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(cumulated[places] / cumulated[-1])


def _resampled(share0: Floats, share1: Floats, n0: float, n1: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    size0, size1 = max(int(n0), 1), max(int(n1), 1)
    return rng.multinomial(size0, share0, RESAMPLES) / size0, rng.multinomial(size1, share1, RESAMPLES) / size1


def _interval(size: float, resampled: Floats) -> tuple[float, float]:
    high = float(np.quantile(resampled, 0.975))
    return max(0.0, 2 * size - high), max(size, high)


def _log_choose(n: int, k: Ints) -> Floats:
    return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def _wilson(p: float, n: float) -> tuple[float, float]:
    if n <= 0:
        return 0.0, 1.0
    z = 1.959963984540054
    middle, half = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max((middle - half) / (1 + z * z / n), 0.0), min((middle + half) / (1 + z * z / n), 1.0)
