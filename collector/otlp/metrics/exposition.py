"""The series that OTLP brought, in Prometheus text 0.0.4 and OpenMetrics 1.0."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from collector.exposition.model import Labels
from collector.exposition.writer import escaped, header, number, series_text
from collector.otlp.metrics.points import Buckets, Exponential, Scalar, Summary, Witness
from collector.otlp.metrics.registry import INFO, MetricFamily, OtlpSeries, Source
from collector.otlp.metrics.series import Series

INFO_HELP = "1, with what the resource of OTLP metrics says of itself."


def exposition(series: OtlpSeries, openmetrics: bool) -> str:
    """All families that are served now, without `# EOF`; exemplars in OpenMetrics alone."""
    families, sources = series.current()
    return "".join(_lines(families, sources, openmetrics))


def _lines(
    families: Sequence[tuple[MetricFamily, Sequence[Series]]], sources: Sequence[Source], openmetrics: bool
) -> Iterator[str]:
    for family, series in families:
        yield header(family.name, family.kind, family.help, family.unit, openmetrics=openmetrics)
        for one in series:
            yield from _of_series(family, one, openmetrics)
    if sources:
        yield header(INFO, "info", INFO_HELP, openmetrics=openmetrics)
        for source in sources:
            yield f"{series_text(INFO, source.info)} 1\n"


def _of_series(family: MetricFamily, series: Series, openmetrics: bool) -> Iterator[str]:
    value = series.value
    if isinstance(value, Scalar):
        witness = _witness(value.witness) if openmetrics and family.kind == "counter" else ""
        yield f"{series_text(family.name, series.labels)} {number(value.value)}{witness}\n"
    elif isinstance(value, Summary):
        yield from _of_summary(family.name, series.labels, value, openmetrics)
    elif isinstance(value, (Buckets, Exponential)):
        held = value.classic() if isinstance(value, Exponential) else value
        yield from _of_histogram(family.name, series.labels, held, openmetrics)


def _of_histogram(name: str, labels: Labels, held: Buckets, openmetrics: bool) -> Iterator[str]:
    inside = "".join(f'{key}="{escaped(value)}",' for key, value in labels)
    limits = _limits(held.bounds)
    for index, (limit, count) in enumerate(zip(limits, held.cumulated(), strict=True)):
        witness = _witness(held.witnesses.get(index)) if openmetrics else ""
        yield f'{name}_bucket{{{inside}le="{limit}"}} {count}{witness}\n'
    # A histogram of values below zero has no sum that only grows: OpenMetrics wants it left out, and the count with it.
    grows = held.sum is not None and held.sum >= 0 and not (held.bounds and held.bounds[0] < 0)
    if grows or not openmetrics:
        yield f"{series_text(name + '_count', labels)} {held.count}\n"
    if held.sum is not None and (grows or not openmetrics):
        yield f"{series_text(name + '_sum', labels)} {number(held.sum)}\n"


def _of_summary(name: str, labels: Labels, held: Summary, openmetrics: bool) -> Iterator[str]:
    # OpenMetrics knows summaries of what is not negative alone.
    for quantile, value in held.quantiles:
        if openmetrics and value < 0:
            continue
        marked = tuple(sorted((*labels, ("quantile", number(quantile)))))
        yield f"{series_text(name, marked)} {number(value)}\n"
    yield f"{series_text(name + '_count', labels)} {held.count}\n"
    if held.sum >= 0 or not openmetrics:
        yield f"{series_text(name + '_sum', labels)} {number(held.sum)}\n"


@lru_cache(maxsize=1024)
def _limits(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*(number(bound) for bound in bounds), "+Inf")


def _witness(witness: Witness | None) -> str:
    if witness is None:
        return ""
    time = "" if witness.time is None else f" {witness.time:.3f}"
    return f' # {{trace_id="{witness.trace_id}",span_id="{witness.span_id}"}} {number(witness.value)}{time}'
