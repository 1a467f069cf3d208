"""A trailing round: every slice's last window against the time before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evals.drift import statistics
from evals.drift.budget import SUSPECTED_ROUND, Budget
from evals.drift.comparison import Comparison, compare, moved, pair
from evals.drift.frame import Frame, Slice
from evals.drift.settings import DriftSettings
from evals.drift.state import Period, Round
from evals.drift.statistics import Floats


@dataclass(frozen=True)
class Tested:
    """A slice and what its test said."""

    part: Slice
    result: Comparison
    cells: statistics.Ints


@dataclass(frozen=True)
class Found:
    """A slice that moved; `confirmed` if the budget pays for a page."""

    tested: Tested
    confirmed: bool
    threshold: float
    since: float


def slices_tested(
    frame: Frame, settings: DriftSettings, this: Round, rng: np.random.Generator
) -> tuple[list[Tested], int]:
    """Tests of all slices that are large enough in both periods, and how many were not.

    Split at the window's start; the frame holds nothing outside both periods.
    """
    cells, least = frame.cells(), settings.minimum_samples
    tested: list[Tested] = []
    small = 0
    for part in frame.slices(np.arange(len(frame)), 2 * least, settings.maximum_slices):
        border = int(np.searchsorted(frame.time[part.rows], this.window.start, side="left"))
        result = None
        if min(border, len(part.rows) - border) >= least:
            result = compare(pair(frame, part.rows[:border], part.rows[border:], cells), least, rng)
        if result is None:
            small += 1
        else:
            tested.append(Tested(part, result, cells))
    return tested, small


def found(
    tested: Sequence[Tested], budget: Budget, settings: DriftSettings, window: Period, rng: np.random.Generator
) -> list[Found]:
    """The slices that moved, of one signal or several: Benjamini-Hochberg over all, then an effect that matters.

    Of slices that share rows, the one with the strongest evidence stands; another only if it moved without those rows.
    """
    p_values = np.array([each.result.p_value for each in tested])
    suspected = statistics.benjamini_hochberg(p_values, max(SUSPECTED_ROUND, budget.trailing_level))
    confirmed = statistics.benjamini_hochberg(p_values, budget.trailing_level)
    candidates = [each for each in tested if each.result.p_value <= suspected and each.result.matters()]
    candidates.sort(key=lambda each: (each.result.p_value, -abs(each.result.effect.size), -len(each.part.by)))
    standing: list[Found] = []
    for each in candidates:
        others = [other.tested.part for other in standing if other.tested.result.pair.frame is each.result.pair.frame]
        if not others or _moved_without(each, others, settings, window, rng):
            sure = each.result.p_value <= confirmed
            threshold = threshold_of(each.result.p_value, p_values, budget.trailing_level)
            standing.append(Found(each, sure, threshold, since(each.result, window)))
    return standing


def threshold_of(p_value: float, p_values: Floats, level: float) -> float:
    """The Benjamini-Hochberg threshold at the rank of `p_value`."""
    return level * int((p_values <= p_value).sum()) / max(len(p_values), 1)


def since(result: Comparison, window: Period) -> float:
    """The most likely moment of the change, between one window before the current one and its end."""
    two = result.pair
    recent = two.reference[two.frame.time[two.reference] >= window.start - (window.end - window.start)]
    rows = np.concatenate([recent, two.current])
    place = statistics.change_point(moved(result, rows))
    return float(two.frame.time[rows[place]]) if place else window.start


def _moved_without(
    each: Tested, others: Sequence[Slice], settings: DriftSettings, window: Period, rng: np.random.Generator
) -> bool:
    rows = np.setdiff1d(each.part.rows, np.concatenate([other.rows for other in others]), assume_unique=False)
    frame = each.result.pair.frame
    border = int(np.searchsorted(frame.time[rows], window.start, side="left"))
    if min(border, len(rows) - border) < settings.minimum_samples:
        return False
    rest = pair(frame, rows[:border], rows[border:], each.cells)
    result = compare(rest, settings.minimum_samples, rng)
    return result is not None and result.matters() and result.p_value <= SUSPECTED_ROUND
