"""Reads for the API and the console: keyset pages of requests and scores, usage, drift and incidents.

A page starts after a row, not after a number of rows, so that what arrives meanwhile neither doubles nor hides any.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from store.order import Order
from store.places import SPAN_PLACES, of_filtered_trace
from store.reads import Reads, asked
from store.scope import (
    ALIASES,
    DIMENSIONS,
    REQUEST_FILTERS,
    Scope,
    Selection,
    UnknownFilter,
    moment,
    where,
)
from store.tables import SPANS

FIRST_TOKEN = "coalesce(time_to_first_token_s, engine_time_to_first_token_s)"
IDS = ("trace_id", "span_id")
SORTS = {
    "newest": Order("start_time", IDS),
    "oldest": Order("start_time", IDS, descending=False),
    "time_to_first_token": Order(FIRST_TOKEN, IDS, by_time=False),
    "duration": Order("duration_s", IDS, by_time=False),
    "output_tokens": Order("output_tokens", IDS, by_time=False),
    "cost": Order("cost_usd", IDS, by_time=False),
}
# Content is large and private: a list shows the rest.
CONTENT = frozenset(
    "input_messages output_messages retrieved_documents attributes response_schema tool_definitions tool_arguments "
    "tool_result metadata".split()
)
LISTED = [name for name in SPANS.names if name not in CONTENT]
# Rows that DuckDB keeps together.
ROW_GROUP = 122_880
USAGE_GROUPS = DIMENSIONS | {"model", "provider", "kind"}
# The instance of the engine that served the request, where a span said it.
INSTANCE = "coalesce(engine_instance, CASE WHEN vantage = 'engine' THEN instance END)"
OF_TARGET = f"""(
    {INSTANCE} = $target OR {INSTANCE} IN (SELECT instance FROM engine_state WHERE target = $target)
    OR (
        ({INSTANCE} IS NULL OR {INSTANCE} NOT IN (
            SELECT instance FROM engine_state WHERE instance IS NOT NULL UNION SELECT target FROM engine_state
        ))
        AND {ALIASES["model"]} IN (SELECT model FROM engine_state WHERE target = $target)
    )
)"""


class Pages:
    """Reads a page at a time; each filtered by the asker's scope here, not by the caller."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def requests(
        self,
        scope: Scope,
        selection: Selection,
        *,
        sort: str = "newest",
        limit: int = 100,
        after: Sequence[Any] | None = None,
        open_in: tuple[float, float] | None = None,
        target: str | None = None,
    ) -> list[dict[str, Any]]:
        """Requests without their content, each with `page_key`: what `after` takes to go on behind it.

        `open_in` asks for requests that were open at some time of [start, end), unix seconds; `target` for those
        that an engine served, or may have served where no span says which one did.  Raises UnknownFilter.
        """
        if sort not in SORTS:
            raise UnknownFilter(f"sort={sort!r} is not known; there are {', '.join(sorted(SORTS))}")
        condition, parameters = where(scope, selection, time="start_time", allowed=REQUEST_FILTERS, aliases=ALIASES)
        conditions = [condition]
        if open_in is not None:
            conditions.append("start_time < $open_end AND end_time >= $open_start")
            parameters |= {"open_start": moment(open_in[0]), "open_end": moment(open_in[1])}
        if target is not None:
            conditions.append(OF_TARGET)
            parameters["target"] = target
        if after is not None:
            conditions.append(SORTS[sort].after(parameters, after))
        order, condition = SORTS[sort], " AND ".join(conditions)

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            narrow, bounds = of_filtered_trace(connection, SPAN_PLACES, selection)
            return _page(connection, order, f"{condition} AND {narrow}", {**parameters, **bounds, "limit": limit})

        return self._reads.together(found)

    def usage(self, scope: Scope, selection: Selection, group_by: Sequence[str]) -> list[dict[str, Any]]:
        """Requests, tokens and cost by dimensions; what no request said is null.  Raises UnknownFilter."""
        unknown = [name for name in group_by if name not in USAGE_GROUPS]
        if unknown:
            raise UnknownFilter(f"cannot group by {unknown[0]!r}; there are {', '.join(sorted(USAGE_GROUPS))}")
        condition, parameters = where(scope, selection, time="start_time", allowed=REQUEST_FILTERS, aliases=ALIASES)
        groups = "".join(f"{ALIASES.get(name, name)} AS {name}, " for name in group_by)
        sql = (
            f"SELECT {groups} count(*) AS requests, count(*) FILTER (status = 'error') AS failed_requests,"
            " sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,"
            " sum(cached_tokens)::BIGINT AS cached_tokens, sum(reasoning_tokens)::BIGINT AS reasoning_tokens,"
            " sum(cost_usd) AS cost_usd"
            f" FROM requests WHERE {condition} GROUP BY ALL ORDER BY requests DESC, ALL"
        )
        if not group_by:
            sql = sql.replace(" GROUP BY ALL ORDER BY requests DESC, ALL", "")
        else:
            sql = sql.replace("DESC, ALL", "DESC, " + ", ".join(group_by))
        return self._reads._fetch(sql, parameters, heavy=True)

    def activity(self, scope: Scope, selection: Selection, group_by: str) -> list[dict[str, Any]]:
        """Requests, failures, and median and 95th percentile of the time to first token, by one dimension."""
        if group_by not in USAGE_GROUPS:
            raise UnknownFilter(f"cannot group by {group_by!r}; there are {', '.join(sorted(USAGE_GROUPS))}")
        condition, parameters = where(scope, selection, time="start_time", allowed=REQUEST_FILTERS, aliases=ALIASES)
        return self._reads._fetch(
            f"SELECT {ALIASES.get(group_by, group_by)} AS value, count(*) AS requests,"
            " count(*) FILTER (status = 'error') AS failed_requests,"
            f" quantile_cont({FIRST_TOKEN}, 0.5) AS median_time_to_first_token_s,"
            f" quantile_cont({FIRST_TOKEN}, 0.95) AS p95_time_to_first_token_s,"
            " quantile_cont(duration_s, 0.5) AS median_duration_s,"
            " sum(output_tokens)::BIGINT AS output_tokens"
            f" FROM requests WHERE {condition} GROUP BY ALL ORDER BY requests DESC, value LIMIT 50",
            parameters,
            heavy=True,
        )

    def rate(self, scope: Scope, selection: Selection, seconds: float) -> list[dict[str, Any]]:
        """Requests and failures in each interval of `seconds`; intervals without any are left out."""
        condition, parameters = where(scope, selection, time="start_time", allowed=REQUEST_FILTERS, aliases=ALIASES)
        return self._reads._fetch(
            "SELECT time_bucket(to_microseconds($width), start_time) AS time, count(*) AS requests,"
            " count(*) FILTER (status = 'error') AS failed_requests"
            f" FROM requests WHERE {condition} GROUP BY ALL ORDER BY time",
            {**parameters, "width": int(seconds * 1e6)},
            heavy=True,
        )

    def drift(self, scope: Scope, *, since: float) -> list[dict[str, Any]]:
        """The latest result of every series since a moment, without evidence; active ones first."""
        return self._reads.query("drift_latest", tenants=_tenants(scope), since=moment(since))

    def drift_series(self, scope: Scope, drift_id: str, *, limit: int) -> list[dict[str, Any]]:
        """Results of one series, newest first; by the series' id or that of one of its results."""
        return self._reads.query("drift_series", tenants=_tenants(scope), id=drift_id, limit=limit)

    def incidents(
        self,
        scope: Scope,
        *,
        status: str | None = None,
        alertname: str | None = None,
        severity: str | None = None,
        start: float | None = None,
        end: float | None = None,
        limit: int = 100,
        after: Sequence[Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Incidents without their context, newest first.  A scope bound to tenants sees those that name one of them."""
        key, last_id = after if after is not None else (None, None)
        return self._reads.query(
            "incidents",
            tenants=_tenants(scope),
            status=status,
            alertname=alertname,
            severity=severity,
            start=None if start is None else moment(start),
            end=None if end is None else moment(end),
            after_key=key,
            after_id=last_id,
            limit=limit,
        )

    def incident(self, scope: Scope, incident_id: str) -> dict[str, Any] | None:
        """One incident with its context."""
        rows = self._reads.query("incident", tenants=_tenants(scope), id=incident_id)
        return rows[0] if rows else None

    def logs(self, scope: Scope, trace_id: str, *, start: float, end: float, limit: int) -> list[dict[str, Any]]:
        """Log records of a trace in [start, end], oldest first; for who may see the trace."""
        return self._reads.query(
            "trace_logs", tenants=_tenants(scope), trace=trace_id, start=moment(start), end=moment(end), limit=limit
        )

    def gpu_nodes(self, *, start: float, end: float) -> list[str]:
        """Nodes whose GPUs reported in [start, end]."""
        rows = self._reads.query("gpu_nodes", start=moment(start), end=moment(end))
        return [row["node"] for row in rows if row["node"]]

    def engines(self, *, start: float, end: float, model: str | None = None) -> list[dict[str, Any]]:
        """Targets, with instance and model, that reported in [start, end]."""
        return self._reads.query("engines", start=moment(start), end=moment(end), model=model)


def _tenants(scope: Scope) -> list[str] | None:
    return None if scope.tenants is None else sorted(scope.tenants)


def _page(
    connection: duckdb.DuckDBPyConnection, order: Order, condition: str, parameters: Mapping[str, Any]
) -> pa.Table:
    """Looks for the page's rows in the few columns that decide which they are, and only then reads the others."""
    chosen = asked(
        connection,
        f"SELECT rowid AS row FROM spans WHERE is_request AND {condition} ORDER BY {order.order} LIMIT $limit",
        parameters,
    )
    rows: list[int] = chosen.column("row").to_pylist()
    # One row group after the other: DuckDB takes the blocks of all that it is asked for into memory at once.
    groups = itertools.groupby(sorted(rows), lambda row: row // ROW_GROUP) if rows else [(0, [])]
    sql = (
        f"SELECT {', '.join(LISTED)}, {order.key} AS page_key, rowid AS row FROM spans"
        " WHERE rowid IN (SELECT unnest($rows::BIGINT[]))"
    )
    found = pa.concat_tables([asked(connection, sql, {"rows": list(group)}) for _, group in groups])
    at = {row: index for index, row in enumerate(found.column("row").to_pylist())}
    return found.take(pa.array([at[row] for row in rows], pa.int64())).drop_columns(["row"])
