"""The named reads that other rooms use.  Each is filtered by the asker's scope here, not by the caller."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from store.database import Database, StoreUnreadable
from store.health import Trouble, invalidated
from store.order import NEWEST_SCORES
from store.places import SCORE_PLACES, SPAN_PLACES, find, of_filtered_trace, of_trace
from store.scope import (
    DIMENSIONS,
    SCORE_ALIASES,
    SCORE_FILTERS,
    Scope,
    Selection,
    moment,
    where,
)
from store.score_sums import covered, score_sums
from store.tables import SCORES, SPANS, TIME

JSON_COLUMNS = frozenset(
    "input_messages output_messages retrieved_documents feature_flags attributes slice_values evidence labels "
    "annotations context details stream clock_event_reasons pids pods response_schema".split()
)
# A query is asked again where the database went down under it, and was opened anew.
ATTEMPTS = 3
Work = Callable[[duckdb.DuckDBPyConnection], pa.Table]


# Reads of long times at once, and reads at all: the rest wait, so that neither ingest nor memory gives out.
HEAVY, ALL = 1, 4
WAIT_SECONDS = 20.0
EARLIEST, LATEST = moment(0.0), moment(253_402_300_799.0)


class ReadRefused(Exception):
    """The store has no room for this question now."""


class UnknownSignal(Exception):
    """A signal's column that does not exist."""


class Reads:
    """Named queries; safe to call from any thread."""

    def __init__(self, database: Database, wait_seconds: float = WAIT_SECONDS) -> None:
        """`wait_seconds` is how long a question waits for its turn before ReadRefused."""
        self._database = database
        self._wait = wait_seconds
        self._local = threading.local()
        self._all, self._heavy = threading.BoundedSemaphore(ALL), threading.BoundedSemaphore(HEAVY)

    # --- for sequential readers -------------------------------------------------------------------------------------

    def cursor(self, name: str) -> int:
        """The stored position of a sequential reader; 0 if it never started."""
        row = self._fetch("SELECT position FROM cursors WHERE name = $name", {"name": name})
        return int(row[0]["position"]) if row else 0

    def pending_requests(self, *, after_seq: int, settled_before: float, limit: int) -> pa.Table:
        """Requests committed after `after_seq` and no later than `settled_before` (unix seconds), in commit order.

        Whole commits only, so that the last row's `commit_seq` is a position to go on from: `limit` may be
        exceeded by the size of one commit.
        """
        return self._arrow(
            _named("pending_requests"),
            {"after": after_seq, "settled": moment(settled_before), "limit": limit},
        )

    def pending_count(self, *, after_seq: int) -> int:
        """Requests committed after `after_seq`."""
        rows = self._fetch("SELECT count(*) AS n FROM requests WHERE commit_seq > $after", {"after": after_seq})
        return int(rows[0]["n"])

    def signal_values(self, column: str, dimensions: Sequence[str], start: float, end: float) -> pa.Table:
        """Values of a signal over requests that ended in [start, end), unix seconds, in the order of their end.

        `column` is `spans.<column>` or `scores.<evaluator>`.  Columns: `value`, `time`, `request_id`, `trace_id`,
        `span_id`, `session_id` and each dimension as a string.  Raises UnknownSignal.
        """
        table, _, name = column.partition(".")
        expressions = [f"{_dimension(dimension)} AS {_quoted(dimension)}" for dimension in dimensions]
        parameters: dict[str, Any] = {"start": moment(start), "end": moment(end)}
        if table == "scores":
            sql, parameters["evaluator"] = _named("signal_scores"), name
        elif table == "spans" and name in SPANS.names:
            sql = _named("signal_spans").replace("{value}", f"r.{_quoted(name)}")
        else:
            raise UnknownSignal(f"{column!r} is no signal; write spans.<column> or scores.<evaluator>")
        sql = sql.replace("{dimensions}", "".join(", " + item for item in expressions))
        return self._arrow(sql, parameters, heavy=True)

    # --- requests ---------------------------------------------------------------------------------------------------

    def trace(self, scope: Scope, trace_id: str) -> list[dict[str, Any]]:
        """All spans of a trace with content, oldest first, that the scope may see; empty if there is none.

        A span that names no tenant (an engine's) goes to those who may see a span of its trace that does; where
        tenants share a trace, to those whose call it describes.
        """

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            condition, parameters = of_trace(connection, SPAN_PLACES, trace_id)
            return asked(connection, f"SELECT * FROM spans WHERE {condition} ORDER BY start_time", parameters)

        rows = self.together(found)
        return rows if scope.tenants is None else _shown(rows, scope.tenants)

    def subject(self, scope: Scope, trace_id: str, span_id: str | None) -> list[dict[str, Any]]:
        """The dimensions of a request, or of a trace's first request, that a score can be about."""
        tenants = None if scope.tenants is None else sorted(scope.tenants)

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            condition, parameters = of_trace(connection, SPAN_PLACES, trace_id)
            sql = _named("subject").replace("{of_trace}", condition)
            return asked(connection, sql, {**parameters, "tenants": tenants, "span": span_id})

        return self.together(found)

    def subjects(self, traces: Sequence[str], responses: Sequence[str], *, since: float) -> list[dict[str, Any]]:
        """What scores can be about: spans of these traces, and spans since a moment that got these responses."""

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            place = find(connection, SPAN_PLACES, *traces) if traces else None
            first, last = (LATEST, EARLIEST) if place is None else (place.first or EARLIEST, place.last or LATEST)
            if responses:
                first, last = min(first, moment(since)), LATEST
            parameters = {"traces": list(traces), "responses": list(responses), "first": first, "last": last}
            return asked(connection, _named("subjects"), parameters)

        return self.together(found)

    def engine_states(self, *, start: float, end: float, targets: Sequence[str]) -> list[dict[str, Any]]:
        """Ticks of `engine_state` in [start, end] of these targets, by time."""
        parameters = {"start": moment(start), "end": moment(end), "targets": list(targets)}
        return self._fetch(_named("engine_states"), parameters)

    def engine_state_at(self, *, at: Sequence[float], target: str | None, model: str | None) -> list[dict[str, Any]]:
        """The last tick at or before each moment (at most 60 s old), for each matching target; ASOF."""
        return self._fetch(
            _named("engine_state_at"),
            {"moments": [moment(item) for item in at], "target": target, "model": model},
        )

    def gpu_states(self, *, start: float, end: float, nodes: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Ticks of `gpu_state` in [start, end], of some nodes or of all, by node and time."""
        parameters = {"start": moment(start), "end": moment(end), "nodes": None if nodes is None else list(nodes)}
        return self._fetch(_named("gpu_states"), parameters)

    # --- scores -----------------------------------------------------------------------------------------------------

    def scores(
        self, scope: Scope, selection: Selection, *, limit: int = 100, after: Sequence[Any] | None = None
    ) -> list[dict[str, Any]]:
        """Scores, newest subject first, each with `page_key`: what `after` takes, with `score_id`, to go on behind it.

        Raises UnknownFilter.
        """
        condition, parameters = where(
            scope, selection, time="subject_time", allowed=SCORE_FILTERS, aliases=SCORE_ALIASES
        )
        if after is not None:
            condition += " AND " + NEWEST_SCORES.after(parameters, after)

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            narrow, bounds = of_filtered_trace(connection, SCORE_PLACES, selection)
            sql = (
                f"SELECT *, {NEWEST_SCORES.key} AS page_key FROM scores WHERE {condition} AND {narrow}"
                f" ORDER BY {NEWEST_SCORES.order} LIMIT $limit"
            )
            return asked(connection, sql, {**parameters, **bounds, "limit": limit})

        return self.together(found)

    def score_sums(
        self, scope: Scope, selection: Selection, group_by: Sequence[str], interval: float | None = None
    ) -> pa.Table:
        """Sums of scored values for estimates, by `evaluator`, each of `group_by` and `bucket`; see score_sums.py.

        Raises UnknownFilter.
        """

        def found(connection: duckdb.DuckDBPyConnection) -> pa.Table:
            return score_sums(connection, scope, selection, group_by, interval)

        heavy = not covered(selection, group_by, interval)
        return _in_utc(self._ask(lambda connection: _in_one_state(connection, found), heavy=heavy))

    # --- the rest ---------------------------------------------------------------------------------------------------

    def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """A named query of `store/queries/` as rows."""
        return self._fetch(_named(name), parameters)

    def table(self, name: str, **parameters: Any) -> pa.Table:
        """A named query of `store/queries/` as an Arrow table."""
        return self._arrow(_named(name), parameters)

    def _connection(self) -> duckdb.DuckDBPyConnection:
        """This thread's, to the database as it is open now."""
        generation = self._database.generation
        if getattr(self._local, "generation", None) != generation:
            self._local.connection = self._database.cursor()
            self._local.generation = generation
        connection: duckdb.DuckDBPyConnection = self._local.connection
        return connection

    def _arrow(self, sql: str, parameters: Mapping[str, Any], *, heavy: bool = False) -> pa.Table:
        return self._ask(lambda connection: asked(connection, sql, parameters), heavy=heavy)

    def together(self, work: Work) -> list[dict[str, Any]]:
        """What several statements find in one state of the store, as rows."""
        return _rows(self._ask(lambda connection: _in_one_state(connection, work)))

    def _ask(self, work: Work, *, heavy: bool = False) -> pa.Table:
        with self._turn(self._heavy) if heavy else nullcontext(), self._turn(self._all):
            return self._answer(work)

    @contextmanager
    def _turn(self, places: threading.BoundedSemaphore) -> Iterator[None]:
        if not places.acquire(timeout=self._wait):
            raise ReadRefused("Too many questions are being answered; try again shortly.")
        try:
            yield
        finally:
            places.release()

    def _answer(self, work: Work) -> pa.Table:
        for attempt in range(ATTEMPTS):
            generation = self._database.generation
            try:
                return work(self._connection())
            except duckdb.OutOfMemoryException as error:
                raise ReadRefused("The question needs more than store.memory_limit; ask for a shorter time.") from error
            except duckdb.Error as error:
                if attempt == ATTEMPTS - 1 or not self._opened_anew(generation, error):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _opened_anew(self, generation: int, error: duckdb.Error) -> bool:
        """Whether the query failed since the database went down, and may be asked again.

        Raises StoreUnreadable if what was asked for is damaged, and what `Database.revive` raises.
        """
        if self._database.settled() == generation:
            problem = self._database.health.failed(error)
            if problem is not None and problem.trouble is Trouble.CORRUPT:
                raise StoreUnreadable(problem.message) from error
            if invalidated(error):
                self._database.revive(generation)
        return self._database.generation != generation

    def _fetch(self, sql: str, parameters: Mapping[str, Any], *, heavy: bool = False) -> list[dict[str, Any]]:
        return _rows(self._arrow(sql, parameters, heavy=heavy))


def _in_one_state(connection: duckdb.DuckDBPyConnection, work: Work) -> pa.Table:
    connection.begin()
    try:
        return work(connection)
    finally:
        with suppress(duckdb.Error):
            connection.rollback()


def asked(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
    """What a statement finds, its times in UTC."""
    return _in_utc(connection.sql(sql, params=dict(parameters)).to_arrow_table())


def _in_utc(table: pa.Table) -> pa.Table:
    """DuckDB labels times with the machine's zone."""
    times = (pa.types.is_timestamp(field.type) and field.type.tz for field in table.schema)
    fields = [field.with_type(TIME) if time else field for field, time in zip(table.schema, times, strict=True)]
    return table.cast(pa.schema(fields))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in JSON_COLUMNS & row.keys():
            row[name] = _parsed(row[name])
    return rows


def _shown(rows: list[dict[str, Any]], tenants: frozenset[str]) -> list[dict[str, Any]]:
    """The spans of a trace that these tenants may see."""
    mine = [row for row in rows if row["tenant"] in tenants]
    if len(mine) == len(rows) or not mine:
        return mine
    nameless = [row for row in rows if row["tenant"] is None]
    if len(mine) + len(nameless) < len(rows):
        calls = {row["request_id"] for row in mine if row["request_id"]}
        nameless = [row for row in nameless if row["request_id"] in calls]
    shown = {id(row) for row in [*mine, *nameless]}
    return [row for row in rows if id(row) in shown]


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _named(name: str) -> str:
    return files("store").joinpath("queries", f"{name}.sql").read_text()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _dimension(name: str) -> str:
    """A request's dimension as SQL text over the alias r."""
    if name == "model":
        return "coalesce(r.response_model, r.request_model)"
    if name in DIMENSIONS or name in SPANS.names or name in SCORES.names:
        return f"CAST(r.{_quoted(name)} AS VARCHAR)"
    raise UnknownSignal(f"{name!r} is no dimension of a request")
