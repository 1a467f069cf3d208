"""Checks PromQL against the catalog: parsing alone finds no query that names a metric nobody serves.

>>> [str(problem) for problem in check_expression("rate(llm_engine_preemption_total[5m])")]
["llm_engine_preemption_total: no such metric; did you mean 'llm_engine_preemptions_total'?"]
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

import promql_parser as promql
from prometheus_client.utils import floatToGoString

from catalog.family import Kind, Origin, families, family_of_sample
from catalog.selectors import (
    ANY_VALUE,
    PROMETHEUS,
    SCRAPED,
    Matcher,
    Selector,
    missing,
    selector_of,
    series_of,
    substitute,
)

__all__ = ["Matcher", "Problem", "Selector", "check_expression", "missing", "series_of", "substitute"]

NO_RECORDED: Mapping[str, Collection[str]] = MappingProxyType({})
NO_BUCKETS: Mapping[str, Collection[float]] = MappingProxyType({})

_OF_COUNTERS = frozenset({"rate", "irate", "increase", "resets"})
_OF_GAUGES = frozenset({"delta", "idelta", "deriv", "predict_linear", "avg_over_time", "sum_over_time"})
_KEEP_SERIES = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_MERGING = frozenset({"sum", "avg"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of an expression: the text at fault, what is wrong, and the nearest valid name or an empty string."""

    text: str
    message: str
    nearest: str = ""

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.text}: {self.message}{hint}"


def check_expression(
    expr: str,
    *,
    recorded: Mapping[str, Collection[str]] = NO_RECORDED,
    buckets: Mapping[str, Collection[float]] = NO_BUCKETS,
) -> list[Problem]:
    """What is wrong with an expression, empty if nothing is.

    `recorded` maps the names of recording rules to their labels.  `buckets` maps families without declared buckets
    (those of engines) to the upper bounds seen in recorded scrapes; `le` can be checked with them only.
    """
    try:
        tree = promql.parse(substitute(expr))
    except ValueError as error:
        return [Problem(" ".join(expr.split()), str(error))]
    check = _Check(recorded, buckets)
    check.vector(tree)
    return list(dict.fromkeys(check.problems))


@dataclass(frozen=True, slots=True)
class _Vector:
    """What is known of a subexpression's series: labels (None: any), labels fixed by `=`, and samples merged in it."""

    labels: frozenset[str] | None
    pinned: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()

    def has(self, label: str) -> bool:
        return self.labels is None or label in self.labels

    def only(self, labels: Iterable[str]) -> "_Vector":
        return _Vector(frozenset(labels), self.pinned, self.samples)

    def without(self, labels: Iterable[str]) -> "_Vector":
        kept = None if self.labels is None else self.labels - frozenset(labels)
        return _Vector(kept, self.pinned, self.samples)

    def adding(self, labels: Iterable[str]) -> "_Vector":
        more = None if self.labels is None else self.labels | frozenset(labels)
        return _Vector(more, self.pinned, self.samples)


@dataclass(slots=True)
class _Check:
    recorded: Mapping[str, Collection[str]]
    buckets: Mapping[str, Collection[float]]
    problems: list[Problem] = field(default_factory=list)

    def vector(self, node: Any) -> _Vector | None:
        """Checks a subexpression and says what its series are like; None for a scalar or a string."""
        match node:
            case promql.VectorSelector():
                return self._select(selector_of(node))
            case promql.MatrixSelector():
                return self._select(selector_of(node.vector_selector))
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.vector(node.expr)
            case promql.Call():
                return self._call(node)
            case promql.AggregateExpr():
                return self._aggregate(node)
            case promql.BinaryExpr():
                return self._binary(node)
        return None

    def _say(self, text: str, message: str, nearest: str = "") -> None:
        self.problems.append(Problem(text, message, nearest))

    def _select(self, selector: Selector) -> _Vector:
        labels = self._labels(selector)
        for matcher in selector.matchers:
            if labels is not None and matcher.label not in labels:
                self._unknown_label(matcher.label, str(selector), labels)
            elif matcher.label == "le" and selector.name.endswith("_bucket"):
                self._check_le(selector, matcher)
        # A variable of Grafana after `=` can be one value only.
        pinned = frozenset(m.label for m in selector.matchers if m.operator == "=")
        return _Vector(labels, pinned, frozenset({selector.name}))

    def _labels(self, selector: Selector) -> frozenset[str] | None:
        """Labels that the selected series can have; an unknown metric is reported, and may then have any."""
        name = selector.name
        if name in self.recorded:
            return frozenset(self.recorded[name])
        if name in PROMETHEUS:
            return PROMETHEUS[name]
        family = family_of_sample().get(name)
        if family is None:
            self._unknown_metric(name)
            return None
        own = {"le"} if name.endswith("_bucket") else set()
        return SCRAPED.union(family.labels, family.optional_labels, own)

    def _unknown_metric(self, name: str) -> None:
        if not name:
            self._say("{}", "a selector needs the name of a metric")
        elif name in families():
            parts = ", ".join(sorted(families()[name].exposed()))
            self._say(name, f"a histogram has no sample of its own name, only {parts}")
        else:
            self._say(name, "no such metric", _nearest(name, [*family_of_sample(), *self.recorded]))

    def _unknown_label(self, label: str, where: str, known: Iterable[str]) -> None:
        self._say(label, f"{where} has no such label", _nearest(label, known))

    def _check_le(self, selector: Selector, matcher: Matcher) -> None:
        family = family_of_sample().get(selector.name)
        if family is None or ANY_VALUE in matcher.value:
            return
        bounds = [_spelled(b) for b in sorted(family.buckets or self.buckets.get(family.name, ()))] + ["+Inf"]
        if any(Matcher("le", "=", matcher.value).accepts(b) for b in bounds if matcher.operator in ("=", "!=")):
            return
        if matcher.operator in ("=~", "!~") and any(re.fullmatch(matcher.value, b) for b in bounds):
            return
        if len(bounds) == 1:
            self._say(f'le{matcher.operator}"{matcher.value}"', f"the buckets of {family.name} are not known")
            return
        message = f"{family.name} has no such bucket, only {', '.join(bounds)}"
        self._say(f'le{matcher.operator}"{matcher.value}"', message, _nearest_bound(matcher.value, bounds))

    def _call(self, node: Any) -> _Vector | None:
        name = node.func.name
        vectors = [vector for vector in map(self.vector, node.args) if vector is not None]
        inner = vectors[0] if vectors else None
        if inner is None:
            return _Vector(frozenset()) if name == "vector" else None
        self._check_kind(node, name)
        if name in ("label_replace", "label_join"):
            return inner.adding([node.args[1].val])
        if name in ("histogram_quantile", "histogram_fraction"):
            return self._quantile(node, inner)
        if name in ("absent", "absent_over_time"):
            return _Vector(inner.pinned)
        return None if name == "scalar" else inner

    def _check_kind(self, node: Any, function: str) -> None:
        """Whether a function over time suits what it is directly applied to."""
        argument = node.args[0]
        if function in _OF_COUNTERS and isinstance(argument, promql.SubqueryExpr):
            self._say(node.prettify(), f"{function}() of a subquery sees resets as drops; aggregate after {function}()")
        if not isinstance(argument, promql.MatrixSelector):
            return
        sample = selector_of(argument.vector_selector).name
        family = family_of_sample().get(sample)
        counts = family is not None and family.kind in (Kind.COUNTER, Kind.HISTOGRAM)
        if function in _OF_COUNTERS and family is not None and not counts:
            self._say(sample, f"{function}() is for counters, and this is a {family.kind}")
        if function in _OF_GAUGES and counts:
            self._say(sample, f"{function}() is for gauges, and this counts up: take a rate first")

    def _quantile(self, node: Any, inner: _Vector) -> _Vector:
        if not any(sample.endswith("_bucket") or sample in self.recorded for sample in inner.samples):
            self._say(node.func.name, "needs the _bucket series of a histogram")
        elif not inner.has("le"):
            self._say(node.func.name, "needs `le` kept: aggregate by (le, ...)", "le")
        first = node.args[0]
        quantile = first.val if isinstance(first, promql.NumberLiteral) else 0.5
        if node.func.name == "histogram_quantile" and not 0 <= quantile <= 1:
            self._say(node.func.name, f"a quantile is from 0 to 1, not {quantile:g}")
        # A quantile is no longer mergeable, so what was merged before does not matter from here on.
        return _Vector(inner.without({"le"}).labels, inner.pinned)

    def _aggregate(self, node: Any) -> _Vector | None:
        inner = self.vector(node.expr)
        if inner is None:
            return None
        operator = str(node.op)
        listed = list(node.modifier.labels) if node.modifier else []
        for label in listed:
            if not inner.has(label):
                self._unknown_label(label, f"{operator} over {_names(inner)}", inner.labels or ())
        if operator in _KEEP_SERIES:
            return inner
        without = node.modifier is not None and node.modifier.type == promql.AggModifierType.Without
        result = inner.without(listed) if without else inner.only(listed)
        if operator in _MERGING:
            self._check_merge(operator, result)
        return result.adding([node.param.val]) if operator == "count_values" else result

    def _check_merge(self, operator: str, result: _Vector) -> None:
        def told_apart(*labels: str) -> bool:
            return any(result.has(label) or label in result.pinned for label in labels)

        for sample in sorted(result.samples):
            family = family_of_sample().get(sample)
            if family is None:
                continue
            if family.origin is Origin.ENGINE and sample.endswith("_bucket") and not told_apart("engine", "target"):
                self._say(sample, f"{operator} merges the buckets of different engines: keep `engine` or `target`")
            if "vantage" in family.labels and not told_apart("vantage"):
                self._say(sample, f"{operator} counts each vantage again: keep `vantage`, or choose one")

    def _binary(self, node: Any) -> _Vector | None:
        left, right = self.vector(node.lhs), self.vector(node.rhs)
        if left is None or right is None:
            return left or right
        operator = str(node.op)
        matching = node.modifier.matching if node.modifier else None
        on = matching is not None and matching.type == promql.LabelModifierType.Include
        listed = list(matching.labels) if matching else []
        for side in (left, right):
            for label in listed if on else ():
                if not side.has(label):
                    self._unknown_label(label, _names(side), side.labels or ())
        if matching and not on:
            for label in listed:
                if not (left.has(label) or right.has(label)):
                    self._unknown_label(
                        label, _names(left), (left.labels or frozenset()) | (right.labels or frozenset())
                    )
        if not on and operator != "or":
            self._check_same_labels(operator, left.without(listed), right.without(listed))
        return self._joined(node, operator, left, right, listed if on else None)

    def _check_same_labels(self, operator: str, left: _Vector, right: _Vector) -> None:
        if left.labels is None or right.labels is None:
            return
        different = (left.labels ^ right.labels) - _optional_labels() - {"le"}
        if different:
            names = ", ".join(sorted(different))
            self._say(
                operator, f"{_names(left)} and {_names(right)} never match: only one side has {names}; use on (...)"
            )

    def _joined(self, node: Any, operator: str, left: _Vector, right: _Vector, on: list[str] | None) -> _Vector:
        pinned, samples = left.pinned | right.pinned, left.samples | right.samples
        if operator in ("and", "unless"):
            return left
        if operator == "or":
            both = None if left.labels is None or right.labels is None else left.labels | right.labels
            return _Vector(both, left.pinned & right.pinned, samples)
        card = node.modifier.card if node.modifier else None
        group = list(node.modifier.group_labels or ()) if node.modifier else []
        many, one = (right, left) if card == promql.VectorMatchCardinality.OneToMany else (left, right)
        for label in group:
            if not one.has(label):
                self._unknown_label(label, _names(one), one.labels or ())
        if card in (promql.VectorMatchCardinality.ManyToOne, promql.VectorMatchCardinality.OneToMany):
            return _Vector(many.adding(group).labels, pinned, samples)
        return _Vector(left.labels if on is None else frozenset(on), pinned, samples)


@cache
def _optional_labels() -> frozenset[str]:
    return frozenset(label for family in families().values() for label in family.optional_labels)


def _spelled(bound: float) -> str:
    """A bucket's bound as the exposition writes it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _names(vector: _Vector) -> str:
    return ", ".join(sorted(vector.samples)) or "this"


def _nearest(text: str, known: Iterable[str]) -> str:
    return next(iter(get_close_matches(text, sorted(known), n=1, cutoff=0.6)), "")


def _nearest_bound(text: str, bounds: Collection[str]) -> str:
    try:
        return min(bounds, key=lambda bound: abs(float(bound) - float(text)))
    except ValueError:
        return ""
