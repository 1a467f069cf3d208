"""Many moments of an exposition as one OpenMetrics file, for `promtool tsdb create-blocks-from openmetrics`."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from collector.exposition.model import Labels
from collector.exposition.writer import family_header, header, number, series_text

if TYPE_CHECKING:
    from collector.mapped import Mapped

# What the client library adds to each counter and histogram; nobody queries it.
_LEFT_OUT = "_created"


@dataclass(slots=True)
class _Run:
    """Consecutive moments of one metric with the same series: times, and their values row by row."""

    texts: tuple[str, ...]
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def lines(self) -> Iterator[str]:
        width = len(self.texts)
        for row, at in enumerate(self.times):
            for column, text in enumerate(self.texts):
                yield f"{text} {number(self.values[row * width + column])} {at:.3f}\n"


@dataclass(slots=True)
class _History:
    header: str
    metrics: dict[Labels, list[_Run]] = field(default_factory=dict)

    def add(self, labels: Labels, texts: tuple[str, ...], at: float, values: Iterable[float]) -> None:
        runs = self.metrics.setdefault(labels, [])
        if not runs or runs[-1].texts != texts:
            runs.append(_Run(texts))
        runs[-1].times.append(at)
        runs[-1].values.extend(values)


class ExpositionHistory:
    """Takes (time, samples) ticks and writes one valid file: each family, and in it each series, in one piece.

    Holds 8 bytes per sample in memory: a quarter of an hour of one vLLM once a second is 3 MB.
    """

    def __init__(self) -> None:
        self._families: dict[str, _History] = {}
        self._last: float | None = None

    def add(self, at: float, scrapes: Iterable["Mapped"], registry: CollectorRegistry | None = None) -> None:
        """What was served at `at` (Unix seconds, later than the last tick's, else ValueError)."""
        at = round(at, 3)
        if self._last is not None and at <= self._last:
            raise ValueError(f"{at:.3f} is not after the tick before, {self._last:.3f}")
        self._last = at
        for mapped in scrapes:
            for name, kind_header, labels, positions in _groups(mapped):
                there = [position for position in positions if mapped.values[position] is not None]
                texts = tuple(mapped.plan.series[position].text_of(mapped.target.name) for position in there)
                if there:
                    history = self._families.setdefault(name, _History(kind_header))
                    history.add(labels, texts, at, (mapped.values[position] or 0.0 for position in there))
        if registry is not None:
            for metric in registry.collect():
                self._add_own(at, metric)

    def _add_own(self, at: float, metric: Metric) -> None:
        grouped: dict[Labels, list[tuple[str, float]]] = {}
        for sample in metric.samples:
            if sample.name.endswith(_LEFT_OUT):
                continue
            labels = tuple(sample.labels.items())
            key = tuple(item for item in labels if item[0] != "le")
            grouped.setdefault(key, []).append((series_text(sample.name, labels), sample.value))
        if not grouped:
            return
        exposed = metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
        top = header(exposed, metric.type, metric.documentation, metric.unit, openmetrics=True)
        history = self._families.setdefault(exposed, _History(top))
        for key, samples in grouped.items():
            history.add(key, tuple(text for text, _ in samples), at, [value for _, value in samples])

    def lines(self) -> Iterator[str]:
        """The file, line by line."""
        for history in self._families.values():
            yield history.header
            for runs in history.metrics.values():
                for run in runs:
                    yield from run.lines()
        yield "# EOF\n"

    def write(self, path: Path) -> int:
        """Writes the file; the number of its bytes."""
        with path.open("w", encoding="utf-8") as out:
            out.writelines(self.lines())
        return path.stat().st_size


Group = tuple[str, str, Labels, Sequence[int]]


def _groups(mapped: "Mapped") -> list[Group]:
    """The scrape's series by family and by labels without `le`: the metrics of OpenMetrics."""
    groups: dict[tuple[str, Labels], list[int]] = {}
    headers: dict[str, str] = {}
    for position, series in enumerate(mapped.plan.series):
        labels = tuple(item for item in series.labels_of(mapped.target.name) if item[0] != "le")
        groups.setdefault((series.family.name, labels), []).append(position)
        if series.family.name not in headers:
            headers[series.family.name] = family_header(series.family, openmetrics=True)
    return [(name, headers[name], labels, positions) for (name, labels), positions in groups.items()]
