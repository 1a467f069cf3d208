"""What a scrape holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]

# Suffixes under which a family's samples appear, longest first.
SUFFIXES = ("_created", "_bucket", "_gcount", "_count", "_total", "_gsum", "_info", "_sum")

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*+)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


def unescaped(raw: str) -> str:
    """What stands between quotation marks; unknown escapes stay as they are, as in Prometheus."""
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group()), raw) if "\\" in raw else raw


class MalformedExposition(ValueError):
    """The text is neither Prometheus text 0.0.4 nor OpenMetrics 1.0; says the line, its text and what was expected."""

    def __init__(self, line: int, text: str, expected: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"line {line}: {shown!r}: expected {expected}")
        self.line = line


class TooManySeries(ValueError):
    """The scrape has more series than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} series; raise scrape.max_series, or serve fewer")


class TooManyNewSeries(ValueError):
    """The scrape brings more series that were not there before than the target may bring now."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"more than {limit} series that it did not have before; a target may bring scrape.max_series of them an "
            "hour: is there an id in a label?"
        )


class Series(NamedTuple):
    """One time series."""

    name: str
    labels: Labels  # sorted by name


@dataclass(frozen=True, slots=True)
class Exemplar:
    """What OpenMetrics hangs on a sample."""

    labels: Labels
    value: float
    timestamp: float | None


@dataclass(frozen=True, slots=True)
class Metadata:
    """TYPE, HELP and UNIT by the name that they were given for."""

    types: Mapping[str, str] = field(default_factory=dict)
    helps: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def type_of(self, sample: str) -> str:
        """The type of a sample's family; `untyped` where the exposition does not say.

        >>> Metadata(types={"a": "histogram"}).type_of("a_bucket")
        'histogram'
        """
        if sample in self.types:
            return self.types[sample]
        for suffix in SUFFIXES:
            if sample.endswith(suffix):
                return self.types.get(sample.removesuffix(suffix), "untyped")
        return "untyped"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Layout:
    """The part of a scrape that seldom changes: the same object as long as nothing but values did.

    `heads` are the series as the text spells them; they are taken apart only when somebody asks, since most of what
    a target serves is never looked at.
    """

    heads: tuple[str, ...]
    metadata: Metadata

    def names(self) -> list[str]:
        """The series' names."""
        return [head.partition("{")[0].strip(" \t") for head in self.heads]

    def labels(self, position: int) -> Labels:
        """The labels of one series."""
        found = _LABEL.findall(self.heads[position].partition("{")[2])
        return tuple(sorted((name, unescaped(raw)) for name, raw in found))

    @property
    def series(self) -> tuple[Series, ...]:
        """All series, taken apart."""
        return tuple(Series(name, self.labels(position)) for position, name in enumerate(self.names()))


@dataclass(frozen=True, slots=True)
class Scrape:
    """A parsed exposition: `values[i]` belongs to `layout.heads[i]`; timestamps (seconds) and exemplars are sparse."""

    layout: Layout
    values: Sequence[float]
    timestamps: Mapping[int, float]
    exemplars: Mapping[int, Exemplar]
    new: int = 0  # series that the target's last good scrape did not have
