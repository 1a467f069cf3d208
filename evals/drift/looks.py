"""A look at a new value: everything since its first request against its predecessor before."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evals.drift.comparison import Comparison, compare, pair, plain_pair
from evals.drift.frame import Frame
from evals.drift.registry import Key, Value, predecessor, slice_values, stream_values
from evals.drift.settings import DriftSettings, SignalSettings
from evals.drift.statistics import Ints

# A value that one tenant alone has is followed in that tenant.
ONE_TENANT = 0.95


@dataclass(frozen=True)
class Look:
    """What one look said; `previous` is the predecessor's name."""

    previous: str
    result: Comparison


def look(
    table: pa.Table, signal: SignalSettings, key: Key, name: str, value: Value, settings: DriftSettings,
    rng: np.random.Generator,
) -> Look | None:  # fmt: skip
    """Compares; None if there is no predecessor to compare with.

    `table` reaches from a reference's length before the value's first row to now.
    """
    frame = Frame(table, signal)
    stream = stream_values(key)
    if (
        "tenant" not in stream
        and "tenant" in signal.by
        and _of_one_tenant(frame, frame.matching(slice_values(key, name)))
    ):
        return None
    previous = predecessor(frame, key[0], stream, name, value.first)
    if previous is None:
        return None
    result = against_predecessor(frame, key, name, previous, value.first, value.first, settings, rng)
    return None if result is None else Look(previous, result)


def against_predecessor(
    frame: Frame, key: Key, name: str, previous: str, first: float, start: float, settings: DriftSettings,
    rng: np.random.Generator,
) -> Comparison | None:  # fmt: skip
    """The new value's rows from `start` against its predecessor's before `first`; None if there are too few."""
    current = frame.matching(slice_values(key, name))
    reference = frame.matching(slice_values(key, previous))
    current, reference = current[frame.time[current] >= start], reference[frame.time[reference] < first]
    if len(reference) < settings.minimum_samples or len(current) == 0:
        return None
    two = pair(frame, reference, current, frame.cells(without=key[0])) or plain_pair(frame, reference, current)
    return compare(two, settings.minimum_samples, rng)


def next_look(count: int, minimum: int) -> int:
    """The smallest of `minimum`, 2 `minimum`, 4 `minimum`, ... above `count`."""
    size = minimum
    while size <= count:
        size *= 2
    return size


def _of_one_tenant(frame: Frame, rows: Ints) -> bool:
    tenants = frame.group(("tenant",))[rows]
    return bool(len(tenants)) and float(np.bincount(tenants + 1)[1:].max(initial=0)) >= ONE_TENANT * len(tenants)
