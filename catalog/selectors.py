"""What a PromQL expression selects, and why it would find nothing."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import promql_parser as promql

# What Prometheus adds to every series that it scrapes.
SCRAPED = frozenset({"job", "instance"})
# Prometheus' own series; None means that they may have any label.
PROMETHEUS: Mapping[str, frozenset[str] | None] = MappingProxyType(
    {"ALERTS": None, "ALERTS_FOR_STATE": None, "up": SCRAPED, "scrape_samples_scraped": SCRAPED}
)

# Grafana fills these with a duration; every other variable stands for a value of a label.
_DURATIONS = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
ANY_VALUE = "grafana_variable"


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label; `operator` is one of `=`, `!=`, `=~`, `!~`."""

    label: str
    operator: str
    value: str

    def accepts(self, value: str) -> bool:
        """Whether a series with this value of the label matches; an absent label's value is empty."""
        if ANY_VALUE in self.value:
            return True
        same = value == self.value if self.operator in ("=", "!=") else bool(re.fullmatch(self.value, value))
        return same is (self.operator in ("=", "=~"))


@dataclass(frozen=True, slots=True)
class Selector:
    """One choice of series within an expression."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        inner = ",".join(f'{m.label}{m.operator}"{m.value}"' for m in self.matchers)
        return f"{self.name}{{{inner}}}" if inner else self.name


def substitute(expr: str) -> str:
    """The expression with Grafana's variables replaced, so that it parses."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        # `$1` belongs to label_replace.
        return match.group(0) if name.isdigit() else _DURATIONS.get(name, ANY_VALUE)

    return _VARIABLE.sub(value, expr)


def series_of(expr: str) -> list[Selector]:
    """The selectors of an expression, in order, each once; raises ValueError if it does not parse."""
    found: dict[Selector, None] = {}

    def visit(node: Any) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            found[selector_of(node)] = None

    promql.walk(promql.parse(substitute(expr)), visit)
    return list(found)


def missing(expr: str, exposed: Mapping[str, Collection[Mapping[str, str]]]) -> list[str]:
    """Why an expression would find no data, empty if it would find some.

    `exposed` maps sample names to the label sets that are there now.  Variables of Grafana match everything, and so
    do conditions on `job` and `instance`, which Prometheus adds.  Of the two sides of `or` one is enough, and the
    right side of `unless` and what is tested by `absent` may be missing.
    """
    return list(dict.fromkeys(_missing(promql.parse(substitute(expr)), exposed)))


def _missing(node: Any, exposed: Mapping[str, Collection[Mapping[str, str]]]) -> Iterator[str]:
    match node:
        case promql.MatrixSelector():
            yield from _missing(node.vector_selector, exposed)
        case promql.VectorSelector():
            yield from _missing_series(selector_of(node), exposed)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr() | promql.AggregateExpr():
            yield from _missing(node.expr, exposed)
        case promql.Call() if not node.func.name.startswith("absent"):
            for argument in node.args:
                yield from _missing(argument, exposed)
        case promql.BinaryExpr():
            left, right = list(_missing(node.lhs, exposed)), list(_missing(node.rhs, exposed))
            operator = str(node.op)
            if operator != "or" or (left and right):
                yield from left
                yield from right if operator != "unless" else ()


def _missing_series(selector: Selector, exposed: Mapping[str, Collection[Mapping[str, str]]]) -> Iterator[str]:
    if selector.name in PROMETHEUS:
        return
    series = exposed.get(selector.name, ())
    if not series:
        yield f"{selector.name}: no such series now"
        return
    matchers = [m for m in selector.matchers if m.label not in SCRAPED]
    if any(all(m.accepts(labels.get(m.label, "")) for m in matchers) for labels in series):
        return
    for matcher in matchers:
        values = sorted({labels.get(matcher.label, "") for labels in series})
        if not any(map(matcher.accepts, values)):
            there = ", ".join(map(repr, values[:10]))
            yield f"{selector}: no series has {matcher.label}{matcher.operator}{matcher.value!r}, only {there}"
            return
    yield f"{selector}: no series has all of these labels at once"


def selector_of(node: Any) -> Selector:
    """The selector of a parsed node, whether its metric is named before the braces or within."""
    name, matchers = node.name or "", []
    alternatives = [matcher for group in node.matchers.or_matchers for matcher in group]
    for matcher in [*node.matchers.matchers, *alternatives]:
        if matcher.name == "__name__" and matcher.op == promql.MatchOp.Equal:
            name = matcher.value
        else:
            matchers.append(Matcher(matcher.name, _OPERATORS[str(matcher.op)], matcher.value))
    return Selector(name, tuple(matchers))


_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
