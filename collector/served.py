"""What `/metrics` serves: the last scrape of every target in common families, and our own registry."""

from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as text_of
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_of

from catalog.clock import Clock
from catalog.family import families
from collector.exposition.writer import (
    OPENMETRICS_CONTENT_TYPE,
    TEXT_CONTENT_TYPE,
    escaped,
    exemplar_text,
    family_header,
    number,
    wants_openmetrics,
)
from collector.mapped import Mapped


class Served:
    """Holds the last good scrape per target; safe to use from several threads.

    A target that has not been scraped well for `stale_after` seconds is served no more, so that no gauge keeps a
    value that nobody vouches for.
    """

    def __init__(self, clock: Clock, stale_after: float, registry: CollectorRegistry | None = None) -> None:
        self._clock = clock
        self._stale_after = stale_after
        self._registry = registry
        self._others: list[Callable[[bool], str]] = []
        self._last: dict[str, Mapped] = {}
        self._lock = Lock()

    def add(self, others: Callable[[bool], str]) -> None:
        """Serves more families: text without `# EOF`, asked for with whether it is to be OpenMetrics."""
        self._others.append(others)

    def put(self, mapped: Mapped) -> None:
        """Replaces what is served of the scrape's target."""
        with self._lock:
            self._last[mapped.target.name] = mapped

    def forget(self, target: str) -> None:
        """Serves nothing of a target any more, for instance because it has left the configuration."""
        with self._lock:
            self._last.pop(target, None)

    def current(self) -> list[Mapped]:
        """The scrapes that are not stale, by target; stale ones are forgotten."""
        oldest = self._clock.now() - self._stale_after
        with self._lock:
            self._last = {name: mapped for name, mapped in self._last.items() if mapped.at >= oldest}
            return [self._last[name] for name in sorted(self._last)]

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The exposition in the format that `accept` prefers, and its content type."""
        openmetrics = wants_openmetrics(accept)
        pieces = rendered(self.current(), openmetrics=openmetrics)
        pieces += [others(openmetrics).encode() for others in self._others]
        if self._registry is not None:
            own = (openmetrics_of if openmetrics else text_of)(_WithoutCreated(self._registry))
            pieces.append(own.removesuffix(b"# EOF\n"))
        if openmetrics:
            return b"".join([*pieces, b"# EOF\n"]), OPENMETRICS_CONTENT_TYPE
        return b"".join(pieces), TEXT_CONTENT_TYPE


class _WithoutCreated:
    """A registry without the `_created` series, which double the counters and which nobody queries."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            kept = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            kept.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield kept


def rendered(scrapes: Sequence[Mapped], *, openmetrics: bool) -> list[bytes]:
    """The scrapes' samples, each family once under its header, whatever the number of targets; without `# EOF`."""
    pieces = []
    there = set().union(*(mapped.plan.parts for mapped in scrapes))
    for name, family in families().items():
        if name in there:
            head = family_header(family, openmetrics=openmetrics)
            lines = (_lines(mapped, name, exemplars=openmetrics) for mapped in scrapes)
            pieces.append("".join([head, *lines]).encode())
    return pieces


def _lines(mapped: Mapped, family: str, *, exemplars: bool) -> str:
    """A family's samples of one target, with exemplars if there are any and they are wanted."""
    part = mapped.plan.parts.get(family)
    if part is None:
        return ""
    target = escaped(mapped.target.name)
    if exemplars and mapped.exemplars:
        seen = mapped.exemplars
        return "".join(
            [
                f"{series.before}{target}{series.after} {number(value)}{exemplar_text(seen.get(position))}\n"
                for position, series, value in zip(
                    range(part.start, part.stop), mapped.plan.series[part], mapped.values[part], strict=True
                )
                if value is not None
            ]
        )
    return "".join(
        [
            f"{series.before}{target}{series.after} {number(value)}\n"
            for series, value in zip(mapped.plan.series[part], mapped.values[part], strict=True)
            if value is not None
        ]
    )
