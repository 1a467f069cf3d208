"""An engine's scrape in common families: the plan of a layout, and the values of a moment."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from catalog.family import Family
from collector.exposition.model import Exemplar, Labels, Layout, Scrape
from collector.exposition.writer import escaped, series_text
from collector.targets import Target


@dataclass(frozen=True, slots=True)
class Source:
    """A native series' part in one of ours: its value times `multiply` by `divide`, and by other series' values."""

    position: int
    multiply: float = 1.0
    divide: float = 1.0
    multiply_by: int | None = None
    divide_by: int | None = None
    absent_when: float | None = None

    def plain(self) -> bool:
        """Whether the value is copied as it is."""
        return (self.multiply, self.divide, self.multiply_by, self.divide_by, self.absent_when) == (
            1.0,
            1.0,
            None,
            None,
            None,
        )

    def value(self, values: Sequence[float]) -> float | None:
        """None where the engine says nothing."""
        value = values[self.position]
        if self.absent_when is not None and value == self.absent_when:
            return None
        value = value * self.multiply / self.divide
        if self.multiply_by is not None:
            value *= values[self.multiply_by]
        if self.divide_by is not None:
            divisor = values[self.divide_by]
            return value / divisor if divisor else None
        return value


@dataclass(frozen=True, slots=True, eq=False)
class MappedSeries:
    """One of our series: the exposed sample name, its labels, and how they stand in the text.

    All targets with the same exposition share it, so the label `target` is left empty: `labels` has it in its place
    with the value '', and `before` and `after` are the text around its value.
    """

    family: Family
    name: str
    labels: Labels
    before: str
    after: str

    def label(self, name: str) -> str:
        """The value of a label, or ''."""
        return next((value for key, value in self.labels if key == name), "")

    def text_of(self, target: str) -> str:
        """Name and labels as they stand before the value, for a target's name."""
        return self.before + escaped(target) + self.after

    def labels_of(self, target: str) -> Labels:
        """The labels with a target's name."""
        return tuple((key, target if key == "target" else value) for key, value in self.labels)


def mapped_series(family: Family, name: str, labels: Labels) -> MappedSeries:
    """A series whose label `target` is to be filled in."""
    whole = series_text(name, labels)
    # It is the first of all labels, so nothing that somebody chose stands before it.
    before, mark, after = whole.partition('{target="')
    return MappedSeries(family, name, labels, before + mark, after)


@dataclass(frozen=True, slots=True)
class Computed:
    """One of our series that is not a plain copy: how its sources are put together."""

    position: int
    combine: Callable[[Iterable[float]], float]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """What a layout means: which of our series take which values.  The same object while the layout is.

    Targets that share a layout, and whose configuration says the same of engine and model, share it.
    """

    engine: str
    models: tuple[str, ...]
    series: tuple[MappedSeries, ...]  # grouped by family, histograms' buckets ascending, then count, sum
    reason: str = ""  # why nothing, or not everything, was mapped
    start: int | None = None  # the scrape's position of the time at which the engine's process started
    _copied: tuple[int, ...] = ()
    _computed: tuple[Computed, ...] = ()
    parts: Mapping[str, slice] = field(default_factory=dict)  # each family's series

    def values(self, values: Sequence[float]) -> list[float | None]:
        """Our values from the scrape's, in the order of `series`."""
        if not self.series:
            return []
        taken = itemgetter(*self._copied)(values)
        ours: list[float | None] = list(taken) if len(self._copied) > 1 else [taken]
        for computed in self._computed:
            parts = [part for source in computed.sources if (part := source.value(values)) is not None]
            ours[computed.position] = computed.combine(parts) if parts else None
        return ours

    def exemplars(self, scrape: Scrape) -> dict[int, Exemplar]:
        """The scrape's exemplars by the position of our series, where it counts the very same thing."""
        computed = {each.position for each in self._computed}
        return {
            ours: scrape.exemplars[native]
            for ours, native in enumerate(self._copied)
            if native in scrape.exemplars and ours not in computed and self._same_bound(ours, scrape.layout, native)
        }

    def _same_bound(self, ours: int, layout: Layout, native: int) -> bool:
        """Whether a bucket's bound is the engine's own: an exemplar's value is not converted with it."""
        bound, theirs = self.series[ours].label("le"), dict(layout.labels(native)).get("le", "")
        return bound == theirs or (bool(bound) and bool(theirs) and float(bound) == float(theirs))

    def families(self) -> tuple[str, ...]:
        """Names of the families that have a series."""
        return tuple(self.parts)


@dataclass(frozen=True, slots=True)
class Mapped:
    """One scrape of a target in common families; None where the engine says nothing."""

    target: Target
    at: float
    plan: Plan
    values: Sequence[float | None]
    started: float | None = None  # Unix time of the engine's start, where it says so
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)  # by the position of our series

    def samples(self) -> Iterator[tuple[MappedSeries, float]]:
        """The series that have a value."""
        for series, value in zip(self.plan.series, self.values, strict=True):
            if value is not None:
                yield series, value
