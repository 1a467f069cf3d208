"""Our own exposition: families of the catalog in Prometheus text 0.0.4 and OpenMetrics 1.0."""

from collections.abc import Iterable, Iterator

from catalog.family import Family, Kind
from collector.exposition.model import Exemplar, Labels

TEXT_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_SPECIAL = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


def wants_openmetrics(accept: str | None) -> bool:
    """Whether a request's `Accept` prefers OpenMetrics; without a preference the old text is served.

    >>> wants_openmetrics("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    True
    >>> wants_openmetrics("text/html, */*;q=0.8")
    False
    """
    best = {"openmetrics": 0.0, "text": 0.0}
    for part in (accept or "").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((_weight(item[2:]) for item in parameters if item.startswith("q=")), 1.0)
        if kind == "application/openmetrics-text":
            best["openmetrics"] = max(best["openmetrics"], weight)
        elif kind in ("text/plain", "text/*", "*/*"):
            best["text"] = max(best["text"], weight)
    return best["openmetrics"] > 0 and best["openmetrics"] >= best["text"]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def number(value: float) -> str:
    """The shortest text that reads back as the same float."""
    text = repr(float(value))
    return _SPECIAL.get(text, text)


def escaped(value: str) -> str:
    """A label's value between its quotation marks."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def series_text(name: str, labels: Labels) -> str:
    """Name and labels as they stand before the value.

    >>> series_text("a_total", (("b", 'c"d'),))
    'a_total{b="c\\\\"d"}'
    """
    if not labels:
        return name
    return name + "{" + ",".join(f'{key}="{escaped(value)}"' for key, value in labels) + "}"


def exemplar_text(exemplar: Exemplar | None) -> str:
    """What stands behind a sample's value in OpenMetrics, with its leading space; '' without an exemplar."""
    if exemplar is None:
        return ""
    when = "" if exemplar.timestamp is None else f" {number(exemplar.timestamp)}"
    return f" # {series_text('', exemplar.labels) or '{}'} {number(exemplar.value)}{when}"


def header(name: str, kind: str, help_text: str, unit: str = "", *, openmetrics: bool) -> str:
    """TYPE, HELP and, in OpenMetrics, UNIT; `name` is that of the samples (a counter's with `_total`)."""
    if openmetrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, "\0"))
        has_unit = unit and name.endswith("_" + unit) and kind != "info"
        unit_line = f"# UNIT {name} {unit}\n" if has_unit else ""
        return f"# TYPE {name} {kind}\n{unit_line}# HELP {name} {escaped(help_text)}\n"
    kind = {"info": "gauge", "unknown": "untyped"}.get(kind, kind)
    help_text = help_text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


def family_header(family: Family, *, openmetrics: bool) -> str:
    """The header of a declared family."""
    return header(family.name, str(family.kind), family.help, family.unit, openmetrics=openmetrics)


def sample_suffix_rank(name: str, kind: Kind) -> int:
    """The order within one histogram: buckets, count, sum."""
    if kind is not Kind.HISTOGRAM:
        return 0
    return 0 if name.endswith("_bucket") else 1 if name.endswith("_count") else 2


def lines(prefixes: Iterable[str], values: Iterable[float | None], suffix: str = "\n") -> Iterator[str]:
    """One line per sample; None is left out."""
    for prefix, value in zip(prefixes, values, strict=True):
        if value is not None:
            yield f"{prefix} {number(value)}{suffix}"
