"""What a scrape holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]

# Suffixes under which a family's samples appear, longest first.
SUFFIXES = ("_created", "_bucket", "_gcount", "_count", "_total", "_gsum", "_info", "_sum")


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


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One time series; the same object in every scrape of a target, so that identity is equality."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The part of a scrape that seldom changes: the same object as long as nothing but values did.

    `repeated` are positions of series that were there before in the same scrape; the first one counts.
    """

    series: tuple[Series, ...]
    metadata: Metadata
    repeated: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Scrape:
    """A parsed exposition: `values[i]` belongs to `layout.series[i]`; timestamps (seconds) and exemplars are sparse."""

    layout: Layout
    values: Sequence[float]
    timestamps: Mapping[int, float]
    exemplars: Mapping[int, Exemplar]
