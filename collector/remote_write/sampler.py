"""Turns what `/metrics` serves into requests of remote write."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from collector.exposition.model import Layout, Series
from collector.exposition.parser import ExpositionParser, ParserLimits
from collector.remote_write.wire import STALE, Encoder

# Our own page: its bounds are those of the families that made it.
LIMITS = ParserLimits(max_series=10_000_000, max_line=1 << 20)


@dataclass(frozen=True)
class Request:
    """A message of 1.0 and the number of its samples."""

    samples: int
    body: bytes


class Sampler:
    """Remembers the series of the last page: what is gone is marked as ended, what remains is not encoded anew."""

    def __init__(self, labels: Mapping[str, str], max_samples: int) -> None:
        self._labels = dict(labels)
        self._max_samples = max_samples
        self._parser = ExpositionParser(LIMITS)
        self._layout: Layout | None = None
        self._series: frozenset[Series] = frozenset()
        self._encoder = Encoder([])

    def requests(self, page: str, at: float) -> list[Request]:
        """The requests for a page (OpenMetrics or text) at Unix time `at`."""
        scrape = self._parser.parse(page)
        milliseconds = round(at * 1000)
        ended: frozenset[Series] = frozenset()
        if scrape.layout is not self._layout:
            series = scrape.layout.series
            ended = self._series - frozenset(series)
            self._layout, self._series = scrape.layout, frozenset(series)
            self._encoder = Encoder(map(self._labelled, series))
        made = list(self._bundled(self._encoder.entries(scrape.values, milliseconds)))
        if ended:
            marks = Encoder(map(self._labelled, ended))
            made += self._bundled(marks.entries([STALE] * len(ended), milliseconds))
        return made

    def _labelled(self, series: Series) -> list[tuple[str, str]]:
        own = {name: value for name, value in series.labels if value}
        return [("__name__", series.name), *({**self._labels, **own}).items()]

    def _bundled(self, entries: Iterator[bytes]) -> Iterator[Request]:
        bundle: list[bytes] = []
        for entry in entries:
            bundle.append(entry)
            if len(bundle) == self._max_samples:
                yield Request(len(bundle), b"".join(bundle))
                bundle = []
        if bundle:
            yield Request(len(bundle), b"".join(bundle))
