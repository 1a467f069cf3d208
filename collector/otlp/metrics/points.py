"""Data points as OTLP has them, and as values that are served: immutable, so that a reader sees one moment."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
    SummaryDataPoint,
)

# Boundaries at powers of the square root of two, whatever the sender's scale: they stay the same while its scale
# goes up and down with the range of its values, and two bucket sets of different scales cannot be compared.
FINEST_SCALE = 1
MAX_EXPONENTIAL_BUCKETS = 80


class DroppedPointError(Exception):
    """A point that is not served; the message is a key of REASONS in registry.py."""


@dataclass(frozen=True, slots=True)
class Witness:
    """An exemplar: a value, when (unix seconds, None if not said), and the span it comes from."""

    value: float
    time: float | None
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A gauge's or a counter's value."""

    value: float
    witness: Witness | None = None

    def plus(self, other: "Scalar") -> "Scalar":
        """Both together."""
        return Scalar(self.value + other.value, other.witness or self.witness)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: counts of each bucket, not cumulated; the last bucket has no upper bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float | None
    count: int
    witnesses: Mapping[int, Witness] = field(default_factory=dict)  # by bucket

    def plus(self, other: "Buckets") -> "Buckets":
        """Both together; other bounds begin anew, as Prometheus takes a reset."""
        if self.bounds != other.bounds:
            return other
        counts = tuple(mine + new for mine, new in zip(self.counts, other.counts, strict=True))
        total = None if self.sum is None or other.sum is None else self.sum + other.sum
        return Buckets(self.bounds, counts, total, self.count + other.count, {**self.witnesses, **other.witnesses})

    def cumulated(self) -> tuple[int, ...]:
        """Counts of `le` buckets."""
        return tuple(accumulate(self.counts))


@dataclass(frozen=True, slots=True)
class Exponential:
    """An exponential histogram, of FINEST_SCALE or coarser; counts by bucket index."""

    scale: int
    positive: Mapping[int, int]
    negative: Mapping[int, int]
    zeros: int
    zero_threshold: float
    sum: float | None
    count: int
    seen: tuple[Witness, ...] = ()

    def plus(self, other: "Exponential") -> "Exponential":
        """Both together, at the coarser scale."""
        scale = min(self.scale, other.scale)
        mine, new = self.at(scale), other.at(scale)
        total = None if mine.sum is None or new.sum is None else mine.sum + new.sum
        return Exponential(
            scale,
            _added(mine.positive, new.positive),
            _added(mine.negative, new.negative),
            mine.zeros + new.zeros,
            max(mine.zero_threshold, new.zero_threshold),
            total,
            mine.count + new.count,
            new.seen or mine.seen,
        ).bounded()

    def at(self, scale: int) -> "Exponential":
        """The same at a coarser scale."""
        shift = self.scale - scale
        if shift <= 0:
            return self
        return replace(
            self, scale=scale, positive=_shifted(self.positive, shift), negative=_shifted(self.negative, shift)
        )

    def bounded(self) -> "Exponential":
        """At a scale at which there are not too many buckets."""
        made = self
        while max(_reach(made.positive), _reach(made.negative)) > MAX_EXPONENTIAL_BUCKETS:
            made = made.at(made.scale - 1)
        return made

    def classic(self) -> Buckets:
        """With classic buckets: every boundary from the lowest bucket that holds something to the highest.

        So a boundary, once there, stays, and new ones come at the ends alone.
        """
        steps = {-self._bound(index): self.negative.get(index, 0) for index in _whole(self.negative)}
        if self.zeros or self.negative:
            steps[self.zero_threshold] = self.zeros
        if self.positive:
            steps.setdefault(self._bound(min(self.positive)), 0)
        for index in _whole(self.positive):
            upper = self._bound(index + 1)
            steps[upper] = steps.get(upper, 0) + self.positive.get(index, 0)
        bounds = tuple(sorted(bound for bound in steps if math.isfinite(bound)))
        counts = tuple(steps[bound] for bound in bounds)
        made = Buckets(bounds, (*counts, self.count - sum(counts)), self.sum, self.count)
        return replace(made, witnesses=_placed(bounds, self.seen))

    def _bound(self, index: int) -> float:
        try:
            return math.pow(2.0, index * math.pow(2.0, -self.scale))
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True)
class Summary:
    """Quantiles as their sender computed them."""

    quantiles: tuple[tuple[float, float], ...]
    sum: float
    count: int


Value = Scalar | Buckets | Exponential | Summary


def scalar(point: NumberDataPoint) -> Scalar:
    """A number's value."""
    value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    return Scalar(float(value), _last(_witnesses(point.exemplars)))


def counter(point: NumberDataPoint) -> Scalar:
    """A counter's value; DroppedPointError for one that counts less than nothing."""
    made = scalar(point)
    if not made.value >= 0 or math.isinf(made.value):
        raise DroppedPointError("malformed")
    return made


def buckets(point: HistogramDataPoint) -> Buckets:
    """A histogram; DroppedPointError for bounds and counts that do not belong together."""
    bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    if bounds and math.isinf(bounds[-1]) and bounds[-1] > 0 and len(bounds) == len(counts):
        bounds = bounds[:-1]
    if not counts and not bounds:
        counts = (point.count,)
    in_order = all(low < high for low, high in pairwise(bounds))
    if len(counts) != len(bounds) + 1 or not in_order or not all(map(math.isfinite, bounds)):
        raise DroppedPointError("malformed")
    if sum(counts) != point.count:
        raise DroppedPointError("malformed")
    total = point.sum if point.HasField("sum") else None
    return Buckets(bounds, counts, total, point.count, _placed(bounds, _witnesses(point.exemplars)))


def exponential(point: ExponentialHistogramDataPoint) -> Exponential:
    """An exponential histogram at a scale that is served."""
    positive = _counts(point.positive.offset, point.positive.bucket_counts)
    negative = _counts(point.negative.offset, point.negative.bucket_counts)
    if sum(positive.values()) + sum(negative.values()) + point.zero_count != point.count:
        raise DroppedPointError("malformed")
    if not point.zero_threshold >= 0 or not -20 <= point.scale <= 20:
        raise DroppedPointError("malformed")
    made = Exponential(
        scale=point.scale,
        positive=positive,
        negative=negative,
        zeros=point.zero_count,
        zero_threshold=point.zero_threshold,
        sum=point.sum if point.HasField("sum") else None,
        count=point.count,
        seen=tuple(_witnesses(point.exemplars)),
    )
    return made.at(FINEST_SCALE).bounded()


def summary(point: SummaryDataPoint) -> Summary:
    """A summary; DroppedPointError for quantiles outside of 0 to 1."""
    quantiles = tuple(sorted({item.quantile: item.value for item in point.quantile_values}.items()))
    if not all(0 <= quantile <= 1 for quantile, _ in quantiles):
        raise DroppedPointError("malformed")
    return Summary(quantiles, point.sum, point.count)


READERS: Mapping[str, Callable[..., Value]] = {
    "gauge": scalar,
    "counter": counter,
    "histogram": buckets,
    "exponential_histogram": exponential,
    "summary": summary,
}


def _counts(offset: int, counts: Sequence[int]) -> dict[int, int]:
    return {offset + index: count for index, count in enumerate(counts) if count}


def _whole(counts: Mapping[int, int]) -> range:
    """All indices from the lowest to the highest."""
    return range(min(counts), max(counts) + 1) if counts else range(0)


def _reach(counts: Mapping[int, int]) -> int:
    return len(_whole(counts))


def _added(mine: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int]:
    return {index: mine.get(index, 0) + new.get(index, 0) for index in {**mine, **new}}


def _shifted(counts: Mapping[int, int], shift: int) -> dict[int, int]:
    made: dict[int, int] = {}
    for index, count in counts.items():
        made[index >> shift] = made.get(index >> shift, 0) + count
    return made


def _witnesses(exemplars: Iterable[Exemplar]) -> list[Witness]:
    found = []
    for item in exemplars:
        value = float(item.as_int if item.WhichOneof("value") == "as_int" else item.as_double)
        if len(item.trace_id) == 16 and len(item.span_id) == 8 and any(item.trace_id) and math.isfinite(value):
            time = item.time_unix_nano / 1e9 if item.time_unix_nano else None
            found.append(Witness(value, time, item.trace_id.hex(), item.span_id.hex()))
    return sorted(found, key=lambda witness: witness.time or 0.0)


def _last(found: Sequence[Witness]) -> Witness | None:
    return found[-1] if found else None


def _placed(bounds: Sequence[float], found: Iterable[Witness]) -> dict[int, Witness]:
    """The latest of each bucket."""
    placed: dict[int, Witness] = {}
    for witness in found:
        index = next((index for index, bound in enumerate(bounds) if witness.value <= bound), len(bounds))
        placed[index] = witness
    return placed
