"""Deletes what is too old, or too much, a piece at a time beside ingest, and gives its disk back.

What DuckDB does with deleted rows (measured with 2.0): deleting 500,000 rows takes 12 ms and writes 8 bytes a row to
the log.  The next checkpoint frees the blocks of row groups (122,880 rows at most) of which nothing is left, in
10 ms, while commits go on; the blocks are used again, and the file shrinks by those at its end.  Row groups that are
left in part can be rewritten by DuckDB itself, but commits wait meanwhile (1.2 s seen), so `Database` switches that
off, and `_move_survivors` does it in pieces.  `VACUUM` frees nothing.

Rows are stored in the order of their arrival and deleted by it, so that row groups empty one after the other.  A
connection of its own is enough: what is deleted is older than anything that the writer still touches.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import duckdb

from catalog.clock import Clock
from catalog.instruments import Instruments
from store.database import Database
from store.scope import moment
from store.score_sums import forget_sums
from store.settings import RetentionSettings

LOG = logging.getLogger(__name__)

# The columns that say when a row arrived.
ARRIVED = {
    "spans": "committed_at",
    "log_records": "committed_at",
    "scores": "committed_at",
    "engine_state": "time",
    "gpu_state": "time",
    "drift_results": "committed_at",
    "incidents": "received_at",
    "deployments": "time",
    "audit_log": "time",
    "usage": "hour",
}
BULK = ("spans", "log_records", "scores", "engine_state", "gpu_state")
TENANTS = ("spans", "log_records", "scores")
# Not scores: DuckDB takes a row that is moved within one transaction for a second one with its key.
MOVED = ("spans", "log_records")
# What is derived of a table's rows, with its time and the rows' time; it goes when all of its time are gone.
DERIVED = (("span_places", "last_time", "spans", "start_time"), ("score_places", "last_time", "scores", "subject_time"),
           ("score_cells", "bucket", "scores", "subject_time"))  # fmt: skip

PIECE_ROWS = 20_000
MOVED_ROWS = 1_000
# Of the bound on the database's size; the rest is for blocks that are free and not at the file's end.
FULL_SHARE = 0.9
# A step of the size bound deletes this share of the time that is there.
STEP_SHARE = 0.05
MAX_STEPS = 100
# Steps that free nothing, until it is clear that something else fills the database.
MAX_IDLE_STEPS = 10
# What is younger than this may still be changed by the writer.
SETTLED_SECONDS = 3600.0
# A row group is worth rewriting when it holds less than this share of living rows.
SPARSE = 0.5


@dataclass(frozen=True)
class Freed:
    """What a round deleted: rows by table and reason (`age`, `size`), and the bytes in use before and after."""

    rows: dict[tuple[str, str], int]
    before: int
    after: int


class Retention:
    """Holds the tables to their bounds; one thread at a time."""

    def __init__(self, database: Database, clock: Clock, metrics: Instruments, settings: RetentionSettings) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._settings = settings

    def step(self) -> Freed:
        """One round.  It may be cut off at any moment; the next one goes on.  Raises duckdb.Error."""
        connection = self._database.cursor()
        try:
            return self._round(connection)
        finally:
            with suppress(duckdb.Error):
                connection.close()

    def _round(self, connection: duckdb.DuckDBPyConnection) -> Freed:
        before = in_use(connection)
        rows: dict[tuple[str, str], int] = {}
        for table, condition in self._too_old():
            self._count(rows, table, "age", _delete(connection, table, *condition))
        if rows:
            self._derived(connection)
            self._fold(connection)
        if self._settings.tenants:
            self._move_survivors(connection)
        self._hold_size(connection, rows)
        after = in_use(connection)
        self._metrics.gauges.tidegauge_store_reusable_bytes.set(_free(connection))
        if rows:
            by_table = {f"{table}_{reason}": count for (table, reason), count in rows.items()}
            LOG.info("retention", extra={"rows": by_table, "bytes_before": before, "bytes_after": after})
        return Freed(rows, before, after)

    def _too_old(self) -> Iterator[tuple[str, tuple[str, list[object]]]]:
        """Tables, each with a condition on its rows and the condition's parameters."""
        now = self._clock.now()
        for table, column in ARRIVED.items():
            kept = getattr(self._settings, table)
            if kept is not None:
                yield table, (f"{column} < ?", [moment(max(now - kept, 0.0))])
        for tenant, shorter in self._settings.tenants.items():
            for table in TENANTS:
                kept = getattr(shorter, table)
                if kept is not None:
                    yield table, (f"{ARRIVED[table]} < ? AND tenant = ?", [moment(max(now - kept, 0.0)), tenant])

    def _hold_size(self, connection: duckdb.DuckDBPyConnection, rows: dict[tuple[str, str], int]) -> None:
        """Deletes the oldest, all bulk tables together, until the database fits its bound."""
        bound = self._settings.max_bytes
        self._metrics.gauges.tidegauge_store_limit_bytes.set(bound or 0)
        if bound is None or in_use(connection) <= bound * FULL_SHARE:
            return
        latest = self._clock.now() - SETTLED_SECONDS
        least, idle = in_use(connection), 0
        for _ in range(MAX_STEPS):
            oldest = _oldest(connection)
            if oldest is None or oldest >= latest or idle >= MAX_IDLE_STEPS:
                LOG.error("retention_cannot_hold_size", extra={"max_bytes": int(bound), "bytes": least})
                return
            self._drop_before(connection, min(oldest + max((latest - oldest) * STEP_SHARE, 1.0), latest), rows)
            if not self._fold(connection) or in_use(connection) <= bound * FULL_SHARE:
                return
            idle = 0 if in_use(connection) < least else idle + 1
            least = min(least, in_use(connection))

    def _drop_before(
        self, connection: duckdb.DuckDBPyConnection, until: float, rows: dict[tuple[str, str], int]
    ) -> None:
        for table in BULK:
            deleted = _delete(connection, table, f"{ARRIVED[table]} < ?", [moment(until)])
            self._count(rows, table, "size", deleted)
        self._derived(connection)

    def _count(self, rows: dict[tuple[str, str], int], table: str, reason: str, count: int) -> None:
        if count:
            rows[table, reason] = rows.get((table, reason), 0) + count
            self._metrics.counters.tidegauge_store_deleted_rows_total.labels(table, reason).inc(count)

    @staticmethod
    def _derived(connection: duckdb.DuckDBPyConnection) -> None:
        for table, time, source, source_time in DERIVED:
            first = f"(SELECT min({source_time}) FROM {source})"
            # A cell of five minutes that the first row lies in stays.
            _delete(connection, table, f"{time} < {first} - INTERVAL 5 MINUTE", [])

    def _fold(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """A checkpoint: only that frees blocks.  False if it has to wait."""
        if not self._database.fold_at():
            return False
        try:
            connection.execute("CHECKPOINT")
        except duckdb.TransactionException:
            return False  # somebody writes just now; the next round, or DuckDB itself, will do it
        return True

    def _move_survivors(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Rewrites row groups that tenants' shorter times left half empty, so that they empty altogether."""
        before = moment(self._clock.now() - SETTLED_SECONDS)
        for table in MOVED:
            for start, end in _sparse(connection, table):
                for first in range(start, end, MOVED_ROWS):
                    _move(connection, table, ARRIVED[table], before, first, min(first + MOVED_ROWS, end))
                self._fold(connection)


def in_use(connection: duckdb.DuckDBPyConnection) -> int:
    """Bytes of the blocks that hold something; the file may have more."""
    size, used = connection.execute("SELECT block_size, used_blocks FROM pragma_database_size()").fetchall()[0]
    return int(size * used)


def _free(connection: duckdb.DuckDBPyConnection) -> int:
    size, free = connection.execute("SELECT block_size, free_blocks FROM pragma_database_size()").fetchall()[0]
    return int(size * free)


def _oldest(connection: duckdb.DuckDBPyConnection) -> float | None:
    each = " UNION ALL ".join(f"SELECT min({ARRIVED[table]}) AS first FROM {table}" for table in BULK)
    (first,) = connection.execute(f"SELECT epoch(min(first)) FROM ({each})").fetchone() or (None,)
    return None if first is None else float(first)


def _delete(connection: duckdb.DuckDBPyConnection, table: str, condition: str, parameters: list[object]) -> int:
    """Deletes in pieces, each a transaction of its own; gives the rows deleted."""
    deleted = 0
    while True:
        row = connection.execute(
            f"SELECT min(rowid), max(rowid) FROM (SELECT rowid FROM {table} WHERE {condition} LIMIT {PIECE_ROWS})",
            parameters,
        ).fetchone()
        if row is None or row[0] is None:
            return deleted
        connection.begin()
        try:
            if table == "scores":
                forget_sums(connection, f"{condition} AND rowid BETWEEN ? AND ?", [*parameters, *row])
            (count,) = connection.execute(
                f"DELETE FROM {table} WHERE {condition} AND rowid BETWEEN ? AND ?", [*parameters, *row]
            ).fetchone() or (0,)
            connection.commit()
        except BaseException:
            with suppress(duckdb.Error):
                connection.rollback()
            raise
        if not count:
            return deleted
        deleted += int(count)


def _sparse(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[int, int]]:
    """The ranges of row ids of the row groups with few living rows, without the last one, which is being filled."""
    groups = connection.execute(
        "SELECT sum(count) FROM pragma_storage_info(?) WHERE column_id = 0 AND segment_type <> 'VALIDITY' "
        "GROUP BY row_group_id ORDER BY row_group_id",
        [table],
    ).fetchall()
    (end,) = connection.execute(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}").fetchone() or (0,)
    found = []
    for index, (count,) in enumerate(reversed(groups)):
        start = end - int(count)
        (living,) = connection.execute(
            f"SELECT count(*) FROM {table} WHERE rowid >= ? AND rowid < ?", [start, end]
        ).fetchone() or (0,)
        if index and 0 < living < SPARSE * count:
            found.append((start, end))
        end = start
    return found[::-1]


def _move(connection: duckdb.DuckDBPyConnection, table: str, column: str, before: object, first: int, end: int) -> None:
    """Moves the rows of a range to the table's end; those that may still change stay."""
    condition = f"rowid >= {first} AND rowid < {end} AND {column} < ?"
    connection.begin()
    try:
        connection.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE {condition}", [before])
        connection.execute(f"DELETE FROM {table} WHERE {condition}", [before])
        connection.commit()
    except BaseException:
        with suppress(duckdb.Error):
            connection.rollback()
        raise
