"""Who asks, and what they filter by: the only way in which a condition enters a query."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Names that the API uses for columns that have another name in the tables.
ALIASES = {"model": "coalesce(response_model, request_model)"}
SCORE_ALIASES = {"model": "request_model"}
DIMENSIONS = frozenset(
    [
        "tenant",
        "service",
        "operation",
        "session_id",
        "prompt_name",
        "prompt_version",
        "deployment",
        "environment",
        "region",
    ]
)
REQUEST_FILTERS = DIMENSIONS | {
    "model", "status", "error_type", "finish_reason", "kind", "provider", "trace_id", "user_id", "request_id",
    "engine_instance",
}  # fmt: skip
SCORE_FILTERS = DIMENSIONS | {
    "model", "evaluator", "version", "status", "error_type", "label", "source", "run_id", "trace_id", "span_id",
}  # fmt: skip


class UnknownFilter(Exception):
    """A filter that is no column of what is asked for."""


@dataclass(frozen=True)
class Scope:
    """The tenants whose rows may be seen; None is all of them."""

    tenants: frozenset[str] | None = None


EVERYTHING = Scope()


@dataclass(frozen=True)
class Selection:
    """Which rows: filters by name, and a half-open range of unix seconds."""

    filters: Mapping[str, str] = field(default_factory=dict)
    start: float | None = None
    end: float | None = None


def moment(seconds: float) -> datetime:
    """Unix seconds as what DuckDB and Arrow take."""
    return datetime.fromtimestamp(seconds, UTC)


def where(
    scope: Scope, selection: Selection, *, time: str, allowed: frozenset[str], aliases: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """A condition and its parameters.  Raises UnknownFilter, naming those there are."""
    conditions, parameters = ["true"], dict[str, Any]()
    if scope.tenants is not None:
        conditions.append("tenant IN (SELECT unnest($scope_tenants))")
        parameters["scope_tenants"] = sorted(scope.tenants)
    for name, value in selection.filters.items():
        if name not in allowed:
            raise UnknownFilter(f"{name!r} is no filter here; there are {', '.join(sorted(allowed))}")
        conditions.append(f"{aliases.get(name, name)} = $filter_{name}")
        parameters[f"filter_{name}"] = value
    for bound, operator, seconds in (("start", ">=", selection.start), ("end", "<", selection.end)):
        if seconds is not None:
            conditions.append(f"{time} {operator} $time_{bound}")
            parameters[f"time_{bound}"] = moment(seconds)
    return " AND ".join(conditions), parameters
