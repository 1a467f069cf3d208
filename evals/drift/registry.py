"""Which values of a dimension have been seen: a new one is an event, and has a predecessor.

A *stream* is what a value is a version of, within a parent slice: the prompt `support` of tenant `bank`, the models of
a service.  A value is new if the stream ran without it for so long that it cannot have been there and unseen: with the
share `s` that it has had since, missing it in the `n` rows before had a probability of `(1 - s)^n` below 1 in 10,000.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from evals.drift.frame import PROMPT, Frame
from evals.drift.settings import SignalSettings
from evals.drift.statistics import Ints

# Dimensions whose values are deployed.  A new tenant is a customer, not a change.
DEPLOYED = ("prompt_version", "model", "deployment", "service_version")
OVERLOOKED = 1e-4
# Values remembered per signal; past it new ones are not followed.
MOST_VALUES = 20_000

Key = tuple[str, tuple[tuple[str, str], ...]]  # dimension, and the values that define the stream


@dataclass
class Value:
    """One value of a stream: rows so far, when the first and the last came, rows of the stream before it."""

    first: float
    last: float
    count: int
    before: int
    # Settled: established or given up; it is not compared with a predecessor any more.
    known: bool = False
    # Rolled back: its next row begins anew.
    retired: bool = False
    looks: int = 0
    next_look: int = 0
    # Rows at the last look.
    looked: int = 0
    series: int = 0


@dataclass
class Stream:
    """Rows of a stream so far, and its values."""

    total: int = 0
    values: dict[str, Value] = field(default_factory=dict)

    def share(self, value: Value) -> float:
        """Share of the stream's rows since the value's first."""
        return value.count / max(self.total - value.before, 1)

    def was_there(self, value: Value) -> bool:
        """Whether the value may have been there all along."""
        return (1.0 - min(self.share(value), 0.9999)) ** value.before > OVERLOOKED


class Registry:
    """The streams of one signal."""

    def __init__(self, signal: SignalSettings) -> None:
        self.streams: dict[Key, Stream] = {}
        self._plans = list(_plans(signal.by))
        self._values = 0

    def observe(self, frame: Frame, rows: Ints, window: float) -> list[tuple[Key, str]]:
        """Takes rows in the order of time, each once; gives the values that were not there before.

        A value without a look that was away for longer than `window` begins anew.
        """
        fresh: list[tuple[Key, str]] = []
        for dimension, parent in self._plans:
            fresh += self._observe(frame, rows, dimension, parent, window)
        return fresh

    def followed(self) -> Iterator[tuple[Key, str, Value]]:
        """Values that are still compared with their predecessor."""
        for key, stream in self.streams.items():
            for name, value in stream.values.items():
                if not value.known:
                    yield key, name, value

    def know(self, entries: Iterable[tuple[Key, str, float]]) -> None:
        """Values seen before a restart, with the time of their first row: they are no events."""
        for key, name, first in entries:
            values = self.streams.setdefault(key, Stream()).values
            values.setdefault(name, Value(first, first, 0, 0, known=True))

    def adopt(self, key: Key, name: str, value: Value) -> None:
        """A value that was being followed before a restart."""
        self.streams.setdefault(key, Stream()).values[name] = value

    def retire(self, key: Key, name: str, last: float) -> None:
        """A value that was rolled back, with the time of its last row: should it come again, it is new again."""
        self.streams.setdefault(key, Stream()).values[name] = Value(last, last, 0, 0, known=True, retired=True)

    def _observe(
        self, frame: Frame, rows: Ints, dimension: str, parent: tuple[str, ...], window: float
    ) -> Iterator[tuple[Key, str]]:
        scope = (*parent, _family(dimension))
        streams, values = _grouped(frame, scope, rows), _grouped(frame, (*scope, dimension), rows)
        for members in _members(streams):
            of_stream = rows[members]
            if streams[members[0]] < 0:
                continue
            key = (dimension, tuple(frame.describe(scope, int(of_stream[0])).items()))
            stream = self.streams.setdefault(key, Stream())
            inner = values[members]
            for place in _members(inner):
                if inner[place[0]] >= 0:
                    name = frame.describe((dimension,), int(of_stream[place[0]]))[dimension]
                    times = frame.time[of_stream[place]]
                    if self._count(stream, name, float(times[0]), float(times[-1]), len(place), int(place[0]), window):
                        yield key, name
            stream.total += len(members)

    def _count(
        self, stream: Stream, name: str, first: float, last: float, count: int, place: int, window: float
    ) -> bool:
        value = stream.values.get(name)
        if value is not None and not _begins_anew(value, first, window):
            value.count += count
            value.last = max(last, value.last)
            return False
        if value is None and self._values >= MOST_VALUES:
            return False
        self._values += value is None
        stream.values[name] = Value(first, last, count, stream.total + place)
        return True


def stream_values(key: Key) -> dict[str, str]:
    """The values that define a stream's slice."""
    return dict(key[1])


def slice_values(key: Key, name: str) -> dict[str, str]:
    """The values that define the slice of one value of a stream."""
    return {**dict(key[1]), key[0]: name}


def predecessor(frame: Frame, dimension: str, stream: Mapping[str, str], name: str, first: float) -> str | None:
    """The value whose share of the stream fell most when `name` came; None if there was none before."""
    rows = frame.matching(stream)
    codes = frame.group((dimension,))[rows]
    later = frame.time[rows] >= first
    names = {int(code): frame.describe((dimension,), int(row))[dimension] for code, row in _firsts(codes, rows)}
    before, after = ({code: int((codes[part] == code).sum()) for code in names} for part in (~later, later))
    total_before, total_after = max(sum(before.values()), 1), max(sum(after.values()), 1)
    drops = {code: before[code] / total_before - after[code] / total_after for code in names if names[code] != name}
    drops = {code: drop for code, drop in drops.items() if before[code]}
    return names[max(drops, key=lambda code: (drops[code], names[code]))] if drops else None


def _plans(by: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Deployed dimensions with the parents in which their values are followed: everywhere, and in each tenant."""
    dimensions = tuple(by)
    for dimension in dimensions:
        if dimension in DEPLOYED:
            yield dimension, ()
            if "tenant" in dimensions:
                yield dimension, ("tenant",)


def _begins_anew(value: Value, first: float, window: float) -> bool:
    if value.retired:
        return first > value.last
    return not value.known and value.looks == 0 and first - value.last > window


def _family(dimension: str) -> str:
    return PROMPT if dimension == "prompt_version" else "service"


def _grouped(frame: Frame, by: tuple[str, ...], rows: Ints) -> Ints:
    return frame.group(by)[rows]


def _members(codes: Ints) -> Iterator[Ints]:
    """Places of each distinct code, in order."""
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order])) + 1
    for part in np.split(order, bounds):
        if len(part):
            yield part


def _firsts(codes: Ints, rows: Ints) -> Iterator[tuple[int, int]]:
    for code, place in zip(*np.unique(codes, return_index=True), strict=True):
        if code >= 0:
            yield int(code), int(rows[place])
