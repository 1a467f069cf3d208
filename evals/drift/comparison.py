"""One comparison of two samples of a signal: the test, the effect with its interval, and what explains it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evals.drift import statistics
from evals.drift.frame import Frame
from evals.drift.settings import Direction, SignalKind
from evals.drift.statistics import Effect, Floats, Ints

DETECTORS = {SignalKind.RATE: "fisher", SignalKind.NUMBER: "kolmogorov_smirnov", SignalKind.CATEGORY: "g_test"}
# Smallest effect that matters, in the test's own unit.
MINIMUM_EFFECTS = {SignalKind.RATE: 0.05, SignalKind.NUMBER: 0.2, SignalKind.CATEGORY: 0.1}
# A part of the traffic needs so many rows in the reference to be compared like with like.
CELL_LEAST = 5
# Smaller cells are weighed together: many tenants with a few rows each are no mix to hold fixed.
CELL_WEIGHED = 30
# Where less of the current traffic than this has a counterpart in the reference, nothing is compared.
MATCHED_LEAST = 0.5
SHOWN_BINS = 20
SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """Two samples, like with like: rows of the current one, rows of the reference and their weights."""

    frame: Frame
    reference: Ints
    current: Ints
    weights: Floats
    matched: float


@dataclass(frozen=True)
class Comparison:
    """What a test said.  Sizes are rows; `log_e_value` is the p-value's worth as an e-value."""

    detector: str
    n_reference: int
    n_current: int
    statistic: float
    p_value: float
    log_e_value: float
    effect: Effect
    reference_mean: float | None
    current_mean: float | None
    design_effect: float
    pair: Pair

    def matters(self) -> bool:
        """Whether the effect is large enough, and goes the way that was asked for."""
        signal, kind = self.pair.frame.signal, self.pair.frame.kind
        wanted = {Direction.UP: self.effect.size > 0, Direction.DOWN: self.effect.size < 0, Direction.BOTH: True}
        directed = kind is SignalKind.CATEGORY or wanted[signal.direction]
        return directed and abs(self.effect.size) >= minimum_effect(self.pair.frame)


def minimum_effect(frame: Frame) -> float:
    """The smallest effect that matters for the frame's signal."""
    return frame.signal.minimum_effect or MINIMUM_EFFECTS[frame.kind]


def pair(frame: Frame, reference: Ints, current: Ints, cells: Ints) -> Pair | None:
    """Both samples with the reference weighted to the current mix of traffic.

    Rows of cells that the reference hardly has are left out: they cannot be compared like with like.  None if that
    would leave out more than half: what was served changed, and says nothing about how well.
    """
    kinds, in_reference, in_current = _places(cells[reference], cells[current])
    counts0 = np.bincount(in_reference, minlength=kinds).astype(float)
    counts1 = np.bincount(in_current, minlength=kinds).astype(float)
    usable = (counts0 >= CELL_LEAST) & (counts1 > 0)
    matched = float(counts1[usable].sum() / max(counts1.sum(), 1.0))
    if matched < MATCHED_LEAST:
        return None
    keep = usable[in_reference]
    weights = (counts1 / np.maximum(counts0, 1.0))[in_reference[keep]]
    return Pair(frame, reference[keep], current[usable[in_current]], weights / weights.mean(), matched)


def plain_pair(frame: Frame, reference: Ints, current: Ints) -> Pair:
    """Both samples as they are, whatever they are mixed from."""
    return Pair(frame, reference, current, np.ones(len(reference)), 0.0)


def _places(reference: Ints, current: Ints) -> tuple[int, Ints, Ints]:
    """Cells of both samples numbered from 1; those too small to be weighed are one, number 0."""
    _, places, counts = np.unique(np.concatenate([reference, current]), return_inverse=True, return_counts=True)
    places = np.where(counts[places] < CELL_WEIGHED, 0, places + 1)
    return len(counts) + 1, places[: len(reference)], places[len(reference) :]


def compare(two: Pair | None, minimum_samples: int, rng: np.random.Generator) -> Comparison | None:
    """The test that fits the signal's kind; None if there is no pair or either sample is too small for one."""
    if two is None:
        return None
    size = statistics.effective_size(two.weights)
    if len(two.current) < minimum_samples or size < minimum_samples:
        return None
    x0, x1 = two.frame.values[two.reference], two.frame.values[two.current]
    deflation = _design_effect(two, x0, x1)
    n0, n1 = size / deflation, len(x1) / deflation
    statistic, p, effect = _TESTS[two.frame.kind](two, x0, x1, n0, n1, rng)
    has_mean = two.frame.kind is not SignalKind.CATEGORY
    return Comparison(
        detector=DETECTORS[two.frame.kind],
        n_reference=len(x0),
        n_current=len(x1),
        statistic=statistic,
        p_value=p,
        log_e_value=statistics.log_e_value(p),
        effect=effect,
        reference_mean=float(np.average(x0, weights=two.weights)) if has_mean else None,
        current_mean=float(x1.mean()) if has_mean else None,
        design_effect=deflation,
        pair=two,
    )


def evidence(result: Comparison) -> dict[str, Any]:
    """What a person needs to believe a comparison: both distributions, who contributes, and examples."""
    two = result.pair
    rows = _by_weight_of_change(result)
    return {
        "minimum_effect": minimum_effect(two.frame),
        "design_effect": round(result.design_effect, 3),
        "mix_matched": round(two.matched, 3),
        "distributions": _distributions(two),
        "contributions": _contributions(result),
        "worst_samples": [_text(two.frame, "trace_id", row) for row in rows[:SHOWN]],
    }


def moved(result: Comparison, rows: Ints) -> Floats:
    """What changed, as one number a row: the value, its rank, or 1 for the category that moved most."""
    frame = result.pair.frame
    if frame.kind is SignalKind.CATEGORY:
        return np.asarray(frame.values[rows] == _most_moved(result.pair), dtype=float)
    if frame.kind is SignalKind.NUMBER:
        values = frame.values[rows]
        return np.searchsorted(np.sort(values), values, side="left").astype(float)
    return frame.values[rows]


# Statistic, p-value, effect.
Answer = tuple[float, float, Effect]


def _rate(two: Pair, x0: Floats, x1: Floats, n0: float, n1: float, rng: np.random.Generator) -> Answer:
    p0, p1 = float(np.average(x0, weights=two.weights)), float(x1.mean())
    table = np.array([n0 * p0, n0 * (1 - p0)]), np.array([n1 * p1, n1 * (1 - p1)])
    p = statistics.fisher_p(n0 * p0, n0, n1 * p1, n1)
    return statistics.g_statistic(*table), p, statistics.rate_effect(p0, n0, p1, n1)


def _number(two: Pair, x0: Floats, x1: Floats, n0: float, n1: float, rng: np.random.Generator) -> Answer:
    distance = statistics.ks_distance(x0, x1, two.weights)
    effect = statistics.number_effect(x0, x1, two.weights, n0, n1, rng)
    return distance, statistics.ks_p(distance, n0, n1), effect


def _category(two: Pair, x0: Floats, x1: Floats, n0: float, n1: float, rng: np.random.Generator) -> Answer:
    share0, share1 = _category_shares(two)
    counts0, counts1 = n0 * share0, n1 * share1
    effect = statistics.category_effect(counts0, counts1, rng)
    return statistics.g_statistic(counts0, counts1), statistics.category_p(counts0, counts1), effect


_TESTS = {SignalKind.RATE: _rate, SignalKind.NUMBER: _number, SignalKind.CATEGORY: _category}


def _category_shares(two: Pair) -> tuple[Floats, Floats]:
    kinds = len(two.frame.categories)
    counts0 = np.bincount(two.frame.values[two.reference].astype(np.int64), two.weights, minlength=kinds)
    counts1 = np.bincount(two.frame.values[two.current].astype(np.int64), minlength=kinds)
    return counts0 / counts0.sum(), counts1 / counts1.sum()


def _design_effect(two: Pair, x0: Floats, x1: Floats) -> float:
    """Of ranks for numbers, of indicators of the commonest categories: what the tests look at."""
    values = np.concatenate([x0, x1])
    if two.frame.kind is SignalKind.NUMBER:
        values = np.searchsorted(np.sort(values), values, side="left").astype(float)
    elif two.frame.kind is SignalKind.CATEGORY:
        common = np.argsort(-np.bincount(values.astype(np.int64)), kind="stable")[:8]
        values = (values[:, None] == common[None, :]).astype(float)
    rows = np.concatenate([two.reference, two.current])
    sides = np.repeat(np.array([0, 1], dtype=np.int64), [len(x0), len(x1)])
    return statistics.design_effect(values, two.frame.sessions[rows], sides)


def _most_moved(two: Pair) -> int:
    share0, share1 = _category_shares(two)
    return int(np.argmax(np.abs(share1 - share0)))


def _by_weight_of_change(result: Comparison) -> Ints:
    """Rows of the current sample, those that speak most for the change first, the latest first among equals."""
    rows = result.pair.current[::-1]
    scores = moved(result, rows)
    falls = result.effect.size < 0
    if result.pair.frame.kind is SignalKind.CATEGORY:
        share0, share1 = _category_shares(result.pair)
        most = _most_moved(result.pair)
        falls = bool(share1[most] < share0[most])
    return rows[np.argsort(scores if falls else -scores, kind="stable")]


def _distributions(two: Pair) -> dict[str, Any]:
    x0, x1 = two.frame.values[two.reference], two.frame.values[two.current]
    if two.frame.kind is SignalKind.RATE:
        return {"reference": _hits(x0), "current": _hits(x1)}
    if two.frame.kind is SignalKind.CATEGORY:
        return {"reference": _counts(two.frame, x0), "current": _counts(two.frame, x1)}
    edges = np.unique(np.quantile(np.concatenate([x0, x1]), np.linspace(0.01, 0.99, SHOWN_BINS - 1)))
    shares = [statistics.bin_counts(x0, edges, two.weights), statistics.bin_counts(x1, edges)]
    reference, current = ([round(float(part), 5) for part in share / share.sum()] for share in shares)
    return {
        "edges": [float(edge) for edge in edges],
        "reference": reference,
        "current": current,
        "wasserstein": statistics.wasserstein(x0, x1, two.weights),
        "quantiles": {"of": [0.05, 0.25, 0.5, 0.75, 0.95], "reference": _quantiles(x0), "current": _quantiles(x1)},
    }


def _hits(values: Floats) -> dict[str, int]:
    return {"hits": int(values.sum()), "n": len(values)}


def _counts(frame: Frame, values: Floats) -> dict[str, int]:
    counts = np.bincount(values.astype(np.int64), minlength=len(frame.categories))
    common = [index for index in np.argsort(-counts, kind="stable")[:SHOWN_BINS] if counts[index]]
    return {frame.categories[index][:100]: int(counts[index]) for index in common}


def _quantiles(values: Floats) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]


def _contributions(result: Comparison) -> list[dict[str, Any]]:
    """Parts of the slice by their share of the change: the part's own change times its share of the traffic."""
    two, frame = result.pair, result.pair.frame
    by = tuple(name for name in frame.dimensions if name != "prompt_name" or "prompt_version" not in frame.dimensions)
    cells = frame.group([name for name in by if _is_known(frame, name)])
    of_category = frame.kind is SignalKind.CATEGORY
    score = (frame.values == _most_moved(two)).astype(float) if of_category else frame.values
    size = int(cells.max(initial=0)) + 2
    n0, n1 = (np.bincount(cells[rows] + 1, minlength=size) for rows in (two.reference, two.current))
    s0, s1 = (np.bincount(cells[rows] + 1, score[rows], minlength=size) for rows in (two.reference, two.current))
    change = np.where((n0 > 0) & (n1 > 0), s1 / np.maximum(n1, 1) - s0 / np.maximum(n0, 1), 0.0) * n1 / max(n1.sum(), 1)
    change[0] = 0.0
    top = [place for place in np.argsort(-np.abs(change), kind="stable")[:SHOWN] if change[place]]
    names = [name for name in by if _is_known(frame, name)]
    return [
        {
            "slice": frame.describe(names, int(np.flatnonzero(cells == place - 1)[0])),
            "change": round(float(change[place]), 6),
            "n_current": int(n1[place]),
            "n_reference": int(n0[place]),
        }
        for place in top
    ]


def _is_known(frame: Frame, name: str) -> bool:
    return bool((frame.group([name]) >= 0).all())


def _text(frame: Frame, name: str, row: int) -> str | None:
    if name not in frame.table.column_names:
        return None
    value: Any = frame.table.column(name)[int(row)].as_py()
    return value if value is None else str(value)


def as_row(result: Comparison) -> Mapping[str, Any]:
    """The columns of `drift_results` that a comparison fills."""
    return {
        "detector": result.detector,
        "n_current": result.n_current,
        "n_reference": result.n_reference,
        "statistic": result.statistic,
        "p_value": result.p_value,
        "log_e_value": result.log_e_value,
        "effect_size": result.effect.size,
        "effect_low": result.effect.low,
        "effect_high": result.effect.high,
        "effect_unit": result.effect.unit,
        "current_mean": result.current_mean,
        "reference_mean": result.reference_mean,
    }
