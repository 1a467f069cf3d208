"""The unit in which Grafana shows an expression: derived from the catalog's units, as a physicist would.

>>> unit_of("rate(hw_energy_joules_total[5m])")
'watt'
>>> unit_of("sum(rate(llm_engine_queue_time_seconds_sum[5m])) / sum(rate(llm_engine_queue_time_seconds_count[5m]))")
's'
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import promql_parser as promql

from catalog.family import family_of_sample
from catalog.selectors import substitute

# A unit as powers of base units; plain numbers of things count as a unit of their own, and a ratio has none.
Powers = Mapping[str, int]
_COUNT: Powers = MappingProxyType({"count": 1})
_RATIO: Powers = MappingProxyType({})

_GRAFANA: Mapping[frozenset[tuple[str, int]], str] = MappingProxyType(
    {
        frozenset(powers.items()): unit
        for powers, unit in (
            (_RATIO, "percentunit"),
            (_COUNT, "short"),
            ({"count": 1, "seconds": -1}, "cps"),
            ({"seconds": -1}, "cps"),
            ({"count": -1}, "short"),
            ({"tokens": 1}, "short"),
            ({"tokens": 1, "seconds": -1}, "si:tok/s"),
            ({"seconds": 1}, "s"),
            ({"bytes": 1}, "bytes"),
            ({"bytes": 1, "seconds": -1}, "binBps"),
            ({"joules": 1}, "joule"),
            ({"joules": 1, "seconds": -1}, "watt"),
            ({"joules": 1, "tokens": -1}, "si:J/tok"),
            ({"watts": 1}, "watt"),
            ({"hertz": 1}, "hertz"),
            ({"celsius": 1}, "celsius"),
        )
    }
)
_PER_SECOND = frozenset({"rate", "irate", "deriv"})
_COUNTING = frozenset({"count", "group", "count_values"})
_COUNTING_CALLS = frozenset({"absent", "absent_over_time", "changes", "count_over_time", "resets", "vector"})


class UnknownUnitError(ValueError):
    """The expression's unit has no name in Grafana; the panel must say it."""


def unit_of(expr: str) -> str:
    """Grafana's unit of an expression."""
    powers = _powers(promql.parse(substitute(expr)))
    powers = _COUNT if powers is None else powers
    known = _GRAFANA.get(frozenset(powers.items()))
    if known is None:
        # Joules a request are joules.
        known = _GRAFANA.get(frozenset((unit, power) for unit, power in powers.items() if unit != "count"))
    if known is None:
        raise UnknownUnitError(f"{' '.join(expr.split())}: no unit of Grafana for {dict(powers)}")
    return known


def _powers(node: Any) -> Powers | None:
    """Powers of a subexpression; None for a plain number."""
    match node:
        case promql.MatrixSelector():
            return _of_sample(node.vector_selector.name or "")
        case promql.VectorSelector():
            return _of_sample(node.name or "")
        case promql.AggregateExpr() if str(node.op) in _COUNTING:
            return _COUNT
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr() | promql.AggregateExpr():
            return _powers(node.expr)
        case promql.Call():
            return _of_call(node)
        case promql.BinaryExpr():
            return _of_binary(node)
    return None


def _of_sample(name: str) -> Powers:
    family = family_of_sample().get(name)
    if family is None or (name != family.name and not name.endswith("_sum")):
        return _COUNT
    return _RATIO if family.unit == "ratio" else {family.unit or "count": 1}


def _of_call(node: Any) -> Powers | None:
    name = node.func.name
    if name == "time":
        return {"seconds": 1}
    if name in _COUNTING_CALLS:
        return _COUNT
    if name == "histogram_quantile":
        selectors: list[Any] = []
        promql.walk(node, lambda inner: selectors.append(inner) if isinstance(inner, promql.MatrixSelector) else None)
        family = family_of_sample()[selectors[0].vector_selector.name or ""]
        return {family.unit or "count": 1}
    inner = next((powers for powers in map(_powers, node.args) if powers is not None), None)
    if inner is None or name not in _PER_SECOND:
        return inner
    return _product(inner, {"seconds": 1}, -1)


def _of_binary(node: Any) -> Powers | None:
    left, right = _powers(node.lhs), _powers(node.rhs)
    operator = str(node.op)
    if operator == "*" and left is not None and right is not None:
        return _product(left, right, 1)
    if operator == "/" and right is not None:
        return _product(_RATIO if left is None else left, right, -1)
    return left if left is not None else right


def _product(left: Powers, right: Powers, sign: int) -> Powers:
    powers = Counter(left)
    for unit, power in right.items():
        powers[unit] += sign * power
    return {unit: power for unit, power in powers.items() if power}
