"""One served series: how a point moves it, and which points come too late or twice."""

from dataclasses import dataclass
from typing import cast

from collector.exposition.model import Labels
from collector.otlp.metrics.points import Buckets, DroppedPointError, Exponential, Scalar, Value

DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Point:
    """A point in time: from `start` (0 if not said) to `time`, unix nanoseconds; `delta` says what it counts from."""

    start: int
    time: int
    value: Value
    delta: bool = False


class Series:
    """The latest of a stream of points, delta ones summed up; `value` is replaced as a whole."""

    __slots__ = ("delta", "labels", "seen", "start", "time", "value")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.start = 0
        self.time = 0
        self.delta = False
        self.seen = 0.0  # unix seconds of the last point's arrival
        self.value: Value | None = None

    def take(self, point: Point, now: float) -> None:
        """Moves the series.  Raises DroppedPointError: duplicate, out_of_order or overlap."""
        if self.value is not None and self.delta == point.delta:
            (self._check_delta if point.delta else self._check_cumulative)(point)
        known = self.value if self.delta == point.delta else None
        self.value = _sum(known, point.value) if point.delta and known is not None else point.value
        self.start, self.time, self.delta, self.seen = point.start, point.time, point.delta, now

    def _check_cumulative(self, point: Point) -> None:
        if point.time == self.time and point.start == self.start:
            raise DroppedPointError(DUPLICATE)
        # A later start is a sender that began anew; an earlier one is another sender under the same name.
        if point.time <= self.time or (point.start and point.start < self.start):
            raise DroppedPointError("out_of_order")

    def _check_delta(self, point: Point) -> None:
        if point.time == self.time and point.start == self.start:
            raise DroppedPointError(DUPLICATE)
        if point.time <= self.time:
            raise DroppedPointError("out_of_order")
        if point.start and point.start < self.time:
            raise DroppedPointError("overlap")


def _sum(known: Value, new: Value) -> Value:
    if isinstance(known, Scalar):
        return known.plus(cast(Scalar, new))
    if isinstance(known, Buckets) and isinstance(new, Buckets):
        return known.plus(new)
    if isinstance(known, Exponential) and isinstance(new, Exponential):
        return known.plus(new)
    return new
