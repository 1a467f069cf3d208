"""What one group commit writes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from store.contents import ContentIntake
from store.spans import UPDATE, SpanIntake
from store.tables import TABLES

# Tables whose rows are known by an id: a known score is dropped, a known incident replaced.
KNOWN_ONCE = {"scores": "score_id"}
REPLACED = frozenset({"incidents"})


class Rows:
    """Collects the rows of a group's submissions, without what is stored already."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        intake: SpanIntake,
        contents: ContentIntake,
        seq: int,
        committed_at: float,
    ) -> None:
        self._connection = connection
        self._intake = intake
        self.contents = contents
        self.seq = seq
        self.committed_at = committed_at
        self.intake = intake
        self._parts: dict[str, list[pa.Table]] = {}
        self._taken: dict[str, set[str]] = {name: set() for name in KNOWN_ONCE}

    def take(self, tables: Mapping[str, pa.Table]) -> tuple[dict[str, int], dict[str, int]]:
        """Adds a submission's rows; gives the rows taken and dropped as duplicates, by table."""
        stored, duplicates = {}, {}
        for name, table in tables.items():
            fresh = self._fresh(name, table)
            stored[name] = fresh.num_rows
            duplicates[name] = table.num_rows - fresh.num_rows
            self._parts.setdefault(name, []).append(fresh)
        return stored, duplicates

    def tables(self) -> dict[str, pa.Table]:
        """The collected rows by table."""
        return {name: pa.concat_tables(parts) for name, parts in self._parts.items()}

    def _fresh(self, name: str, table: pa.Table) -> pa.Table:
        if name == "spans":
            return self._intake.fresh(table)
        if name in ("log_records", "span_contents"):
            return self.contents.fresh(name, table)
        if name in KNOWN_ONCE:
            return self._unknown(name, KNOWN_ONCE[name], table)
        return table

    def _unknown(self, name: str, key: str, table: pa.Table) -> pa.Table:
        ids = table.column(key).to_pylist()
        stored = self._connection.execute(
            f"SELECT {key} FROM {name} WHERE {key} IN (SELECT unnest(?))", [ids]
        ).fetchall()
        taken = self._taken[name]
        taken.update(value for (value,) in stored)
        keep = [value not in taken and not taken.add(value) for value in ids]  # type: ignore[func-returns-value]
        return table.filter(pa.array(keep, pa.bool_()))


def write(
    connection: duckdb.DuckDBPyConnection, rows: Rows, cursors: Sequence[Mapping[str, int]]
) -> dict[str, pa.Table]:
    """Writes the rows and moves the cursors in the open transaction; gives the rows as written, by table."""
    written = {}
    stamped = {name: _stamp(name, table, rows) for name, table in rows.tables().items() if table.num_rows}
    for name, table in rows.contents.settle(stamped, rows.committed_at).items():
        if table.num_rows == 0:
            continue
        if name == "spans":
            table, updates = rows.intake.decide(table, rows.committed_at)
            if updates.num_rows:
                _execute(connection, UPDATE, updates, [min(updates.column("start_time").to_pylist())])
        verb = "INSERT OR REPLACE" if name in REPLACED else "INSERT"
        _execute(connection, f"{verb} INTO {name} BY NAME SELECT * FROM incoming", table)
        if name == "spans":
            rows.intake.write_fills()
        written[name] = table
    for name, position in {name: value for group in cursors for name, value in group.items()}.items():
        connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", [name, position])
    return written


def _execute(
    connection: duckdb.DuckDBPyConnection, sql: str, incoming: pa.Table, parameters: Sequence[Any] = ()
) -> None:
    connection.register("incoming", incoming)
    try:
        connection.execute(sql, list(parameters))
    finally:
        connection.unregister("incoming")


def _stamp(name: str, table: pa.Table, rows: Rows) -> pa.Table:
    """Fills the columns that are the writer's to fill."""
    when = datetime.fromtimestamp(rows.committed_at, UTC)
    for column, value in (("commit_seq", rows.seq), ("committed_at", when)):
        index = TABLES[name].get_field_index(column)
        if index >= 0:
            field = TABLES[name].field(column)
            table = table.set_column(index, field, pa.repeat(pa.scalar(value, field.type), table.num_rows))
    return table
