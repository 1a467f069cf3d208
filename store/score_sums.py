"""Sums of scores from which means and their intervals are made, so that no read carries the scores themselves.

A mean's interval needs sums over sessions, not only over scores: with A the weighted values and B the weights of a
session, `squares` is the sum of (A - cB)^2 over sessions, `cross` that of (A - cB)B and `cluster_weights` that of B^2.
From them comes the sum of (A - mB)^2 for any mean m; `centre`, c, is near the mean so that little is lost to rounding.
A session is one tenant's: two tenants may name theirs alike.

Sums over five minutes are kept in `score_cells` by evaluator, and by tenant and model, by one of them, or by neither
(their grain): sessions that use several models cannot be told from sums by model, so each question has its grain.  What
asks for other intervals or dimensions is summed from the scores.  Cells follow the scores at a distance: what a later
commit has touched is summed anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa

from store.positions import move, position
from store.scope import EVERYTHING, SCORE_ALIASES, SCORE_FILTERS, Scope, Selection, UnknownFilter, where

CURSOR = "score_cells"
CELL_SECONDS = 300
MAX_STEP = 250_000
SCORED = "status = 'scored' AND isfinite(value)"
IN_CELL = f"time_bucket(INTERVAL {CELL_SECONDS} SECONDS, subject_time)"
# What the cells know of a score, and under which name.
CELL_COLUMNS = frozenset({"evaluator", "tenant", "model"})
EVERY = Selection()
# The dimensions by which cells are, beside the evaluator.
GRAINS = ((), ("model",), ("tenant",), ("model", "tenant"))
# The grain of a row that says that scores of its interval are gone, and no sum.
GONE = "gone"


def _chosen(keys: Mapping[str, str], condition: str) -> str:
    """SQL of the scores to sum, by keys (name -> expression)."""
    columns = "".join(f"{sql} AS {name}, " for name, sql in keys.items())
    return (
        f"SELECT {columns}evaluator AS by_evaluator, tenant AS of_tenant, session_id AS of_session, value,"
        f" 1.0 / coalesce(sampling_probability, 1.0) AS weight FROM scores WHERE {SCORED} AND {condition}"
    )


def _summed(keys: Sequence[str], chosen: str, few: bool) -> str:
    """SQL of the sums of `chosen` by keys; a few rows are read once, many again, since they would not fit in memory."""
    names = ", ".join(keys)
    return f"""
        WITH chosen AS {"MATERIALIZED" if few else "NOT MATERIALIZED"} ({chosen})
        SELECT {names}, sum(n)::BIGINT AS n, count(*) AS clusters, sum(b) AS weight, sum(a) AS weighted,
            min(low) AS low, max(high) AS high, min(weight_low) AS weight_low, max(weight_high) AS weight_high,
            bool_and(is_share) AS is_share, any_value(centre) AS centre, sum((a - centre * b) ** 2) AS squares,
            sum((a - centre * b) * b) AS cross_sum, sum(b * b) AS cluster_weights
        FROM (
            SELECT {names}, by_evaluator, count(*) AS n, sum(weight) AS b, sum(weight * value) AS a,
                min(value) AS low, max(value) AS high, min(weight) AS weight_low, max(weight) AS weight_high,
                bool_and(value = 0 OR value = 1) AS is_share
            FROM chosen WHERE of_session IS NOT NULL GROUP BY {names}, by_evaluator, of_tenant, of_session
            UNION ALL
            SELECT {names}, by_evaluator, 1, weight, weight * value, value, value, weight, weight,
                value = 0 OR value = 1
            FROM chosen WHERE of_session IS NULL
        ) JOIN (SELECT by_evaluator, avg(value) AS centre FROM chosen GROUP BY by_evaluator) USING (by_evaluator)
        GROUP BY {names}
    """


# --- reading ---------------------------------------------------------------------------------------------------------


def score_sums(
    connection: duckdb.DuckDBPyConnection,
    scope: Scope,
    selection: Selection,
    group_by: Sequence[str],
    interval: float | None = None,
) -> pa.Table:
    """Sums by `evaluator`, each of `group_by` and, with an interval, `bucket` (its start).  Raises UnknownFilter.

    To be called in a transaction: what the cells say and what is newer than they must be of the same moment.
    """
    by = list(dict.fromkeys(["evaluator", *group_by]))
    for name in by:
        if name not in SCORE_FILTERS:
            raise UnknownFilter(f"cannot group by {name!r}; there are {', '.join(sorted(SCORE_FILTERS))}")
    if covered(selection, group_by, interval):
        return _from_cells(connection, scope, selection, by)
    return _from_scores(connection, scope, selection, by, interval)


def covered(selection: Selection, group_by: Sequence[str], interval: float | None) -> bool:
    """Whether the cells answer most of it."""
    known = {"evaluator", *group_by, *selection.filters} <= CELL_COLUMNS
    return interval == CELL_SECONDS and known and selection.start is not None


def _from_scores(
    connection: duckdb.DuckDBPyConnection,
    scope: Scope,
    selection: Selection,
    by: Sequence[str],
    interval: float | None,
    besides: str | None = None,
) -> pa.Table:
    condition, parameters = where(scope, selection, time="subject_time", allowed=SCORE_FILTERS, aliases=SCORE_ALIASES)
    keys = {name: SCORE_ALIASES.get(name, name) for name in by}
    if interval is not None:
        keys["bucket"] = "time_bucket(to_microseconds($interval), subject_time)"
        parameters["interval"] = int(interval * 1e6)
    chosen = _chosen(keys, f"{condition} AND {besides or 'true'}")
    return connection.sql(_summed(list(keys), chosen, besides is not None), params=parameters).to_arrow_table()


def _from_cells(
    connection: duckdb.DuckDBPyConnection, scope: Scope, selection: Selection, by: Sequence[str]
) -> pa.Table:
    """Cells of the intervals that lie wholly within and that no later commit has touched; the others from the scores.

    A group is of one interval and evaluator, so it comes from one of the two.
    """
    inside, edges = _inside(selection)
    parts = [_from_scores(connection, scope, edge, by, CELL_SECONDS, "true") for edge in edges]
    if inside is not None:
        late = _touched(connection, position(connection, CURSOR), None, inside)
        connection.register("late_cells", late)
        try:
            parts.append(_of_cells(connection, scope, inside, by))
            if late.num_rows:
                starts = [time.timestamp() for time in late.column("bucket").to_pylist()]
                span = replace(inside, start=min(starts), end=max(starts) + CELL_SECONDS)
                units = f"({IN_CELL}, evaluator) IN (SELECT (bucket, evaluator) FROM late_cells)"
                parts.append(_from_scores(connection, scope, span, by, CELL_SECONDS, units))
        finally:
            connection.unregister("late_cells")
    return pa.concat_tables(parts)


def _inside(selection: Selection) -> tuple[Selection | None, list[Selection]]:
    """The part that is made of whole cells, and the parts before and behind it."""
    start, end = selection.start, selection.end
    first = None if start is None else -(-start // CELL_SECONDS) * CELL_SECONDS
    last = None if end is None else end // CELL_SECONDS * CELL_SECONDS
    if first is not None and last is not None and first >= last:
        return None, [selection]
    edges = []
    if first is not None and first != start:
        edges.append(replace(selection, end=first))
    if last is not None and last != end:
        edges.append(replace(selection, start=last))
    return replace(selection, start=first, end=last), edges


def _of_cells(connection: duckdb.DuckDBPyConnection, scope: Scope, selection: Selection, by: Sequence[str]) -> pa.Table:
    condition, parameters = where(scope, selection, time="bucket", allowed=CELL_COLUMNS, aliases={})
    asked = {*by, *selection.filters, *(() if scope.tenants is None else ("tenant",))}
    grain = _grain([name for name in ("model", "tenant") if name in asked])
    chosen = (
        f"FROM score_cells WHERE grain = '{grain}' AND {condition}"
        " AND (bucket, evaluator) NOT IN (SELECT (bucket, evaluator) FROM late_cells)"
    )
    names = ", ".join([*by, "bucket"])
    return connection.sql(
        f"""
        SELECT {names}, sum(n)::BIGINT AS n, sum(clusters)::BIGINT AS clusters, sum(weight) AS weight,
            sum(weighted) AS weighted, min(low) AS low, max(high) AS high, min(weight_low) AS weight_low,
            max(weight_high) AS weight_high, bool_and(is_share) AS is_share, any_value(common) AS centre,
            sum(squares + 2 * (centre - common) * cross_sum + (centre - common) ** 2 * cluster_weights) AS squares,
            sum(cross_sum + (centre - common) * cluster_weights) AS cross_sum, sum(cluster_weights) AS cluster_weights
        FROM (SELECT * {chosen}) JOIN (SELECT evaluator, avg(centre) AS common {chosen} GROUP BY evaluator)
        USING (evaluator) GROUP BY {names}
        """,
        params=parameters,
    ).to_arrow_table()


def _touched(
    connection: duckdb.DuckDBPyConnection, after: int, through: int | None, selection: Selection = EVERY
) -> pa.Table:
    """`bucket` and `evaluator` of the scores that came after a commit, and no later than another, or are gone."""
    condition, parameters = where(
        EVERYTHING, selection, time="subject_time", allowed=SCORE_FILTERS, aliases=SCORE_ALIASES
    )
    gone, bounds = where(EVERYTHING, replace(selection, filters={}), time="bucket", allowed=CELL_COLUMNS, aliases={})
    if through is not None:
        condition += " AND commit_seq <= $through"
        parameters["through"] = through
    return connection.sql(
        f"SELECT {IN_CELL} AS bucket, evaluator FROM scores"
        f" WHERE commit_seq > $after AND {SCORED} AND subject_time IS NOT NULL AND {condition}"
        f" UNION SELECT bucket, evaluator FROM score_cells WHERE grain = '{GONE}' AND {gone}",
        params={**parameters, **bounds, "after": after},
    ).to_arrow_table()


# --- keeping the cells -----------------------------------------------------------------------------------------------


def forget_sums(connection: duckdb.DuckDBPyConnection, condition: str, parameters: Sequence[Any]) -> None:
    """Has the sums made anew in which scores count that the open transaction is about to delete."""
    connection.execute(
        f"INSERT INTO score_cells (bucket, evaluator, grain) SELECT DISTINCT {IN_CELL}, evaluator, '{GONE}'"
        f" FROM scores WHERE subject_time IS NOT NULL AND ({condition})",
        list(parameters),
    )


def extend_cells(connection: duckdb.DuckDBPyConnection) -> int:
    """Makes the sums anew that commits since the last time have touched; gives the scores gone through."""
    after = position(connection, CURSOR)
    rows, through = connection.execute(
        "SELECT count(*), max(commit_seq) FROM"
        f" (SELECT commit_seq FROM scores WHERE commit_seq > $after ORDER BY commit_seq LIMIT {MAX_STEP})",
        {"after": after},
    ).fetchall()[0]
    # One transaction from the reading on: what is deleted meanwhile is touched again.
    connection.begin()
    try:
        _renew(connection, after, after if through is None else through)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return int(rows)


def _renew(connection: duckdb.DuckDBPyConnection, after: int, through: int) -> None:
    touched = _touched(connection, after, through)
    connection.register("late_cells", touched)
    try:
        cells = [_cells(connection, touched, grain, through) for grain in GRAINS] if touched.num_rows else []
        connection.execute(
            "DELETE FROM score_cells WHERE (bucket, evaluator) IN (SELECT (bucket, evaluator) FROM late_cells)"
        )
        for table in cells:
            connection.register("new_cells", table)
            connection.execute("INSERT INTO score_cells BY NAME SELECT * FROM new_cells")
            connection.unregister("new_cells")
    finally:
        connection.unregister("late_cells")
    if through != after:
        move(connection, CURSOR, through)


def _grain(names: Sequence[str]) -> str:
    return " ".join(names)


def _cells(connection: duckdb.DuckDBPyConnection, touched: pa.Table, grain: Sequence[str], through: int) -> pa.Table:
    keys = {"bucket": IN_CELL, "evaluator": "evaluator", "grain": f"'{_grain(grain)}'"}
    keys |= {name: SCORE_ALIASES.get(name, name) for name in grain}
    starts = touched.column("bucket").to_pylist()
    chosen = _chosen(
        keys,
        "subject_time >= $first AND subject_time < $last AND commit_seq <= $through"
        f" AND ({IN_CELL}, evaluator) IN (SELECT (bucket, evaluator) FROM late_cells)",
    )
    return connection.sql(
        _summed(list(keys), chosen, few=True),
        params={"first": min(starts), "last": max(starts) + timedelta(seconds=CELL_SECONDS), "through": through},
    ).to_arrow_table()
