"""What one group commit writes."""

from collections.abc import Mapping, Sequence
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa

from store.batch import with_columns
from store.contents import ContentIntake
from store.feed import Statement
from store.known_scores import known_scores
from store.spans import SpanIntake
from store.tables import TABLES, TIME

# A known incident is replaced.
REPLACED = frozenset({"incidents"})


class Inserts:
    """Statements that insert rows, planned once for a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._statements = {
            name: Statement(connection, f"insert_{name}", schema, partial(_insert, name, schema))
            for name, schema in TABLES.items()
        }

    def run(self, name: str, rows: pa.Table) -> None:
        """Inserts rows of the named table in the open transaction; raises duckdb.Error."""
        self._statements[name].run(rows)


def _insert(name: str, schema: pa.Schema, rows: str) -> str:
    verb = "INSERT OR REPLACE" if name in REPLACED else "INSERT"
    return f"{verb} INTO {name} BY NAME SELECT {', '.join(schema.names)} FROM {rows}"


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
        self.intake = intake
        self.contents = contents
        self.seq = seq
        self.committed_at = committed_at
        self._parts: dict[str, list[pa.Table]] = {}
        self._scores: set[str] = set()

    def take(self, group: Sequence[Mapping[str, pa.Table]]) -> list[tuple[dict[str, int], dict[str, int]]]:
        """Adds submissions' rows; gives of each the rows taken and dropped as duplicates, by table."""
        spans = iter(self._fresh_spans([tables["spans"] for tables in group if "spans" in tables]))
        results = []
        for tables in group:
            stored, duplicates = {}, {}
            for name, table in tables.items():
                fresh = next(spans) if name == "spans" else self._fresh(name, table)
                stored[name] = fresh.num_rows
                duplicates[name] = table.num_rows - fresh.num_rows
                self._parts.setdefault(name, []).append(fresh)
            results.append((stored, duplicates))
        return results

    def tables(self) -> dict[str, pa.Table]:
        """The collected rows by table."""
        return {name: pa.concat_tables(parts) for name, parts in self._parts.items()}

    def _fresh_spans(self, parts: Sequence[pa.Table]) -> Sequence[pa.Table]:
        return self.intake.fresh(parts, self.seq) if parts else ()

    def _fresh(self, name: str, table: pa.Table) -> pa.Table:
        if name in ("log_records", "span_contents"):
            return self.contents.fresh(name, table)
        if name == "scores":
            return self._unknown_scores(table)
        return table

    def _unknown_scores(self, table: pa.Table) -> pa.Table:
        taken = self._scores
        taken |= known_scores(self._connection, table)
        ids = table.column("score_id").to_pylist()
        keep = [value not in taken and not taken.add(value) for value in ids]  # type: ignore[func-returns-value]
        return table.filter(pa.array(keep, pa.bool_()))


def write(
    connection: duckdb.DuckDBPyConnection, inserts: Inserts, rows: Rows, cursors: Sequence[Mapping[str, int]]
) -> dict[str, pa.Table]:
    """Writes the rows and moves the cursors in the open transaction; gives the rows as written, by table."""
    written = {}
    stamped = {name: _stamp(name, table, rows) for name, table in rows.tables().items() if table.num_rows}
    for name, table in rows.contents.settle(stamped, rows.committed_at).items():
        if table.num_rows == 0:
            continue
        if name == "spans":
            table = rows.intake.decide(table, rows.seq, rows.committed_at)
        inserts.run(name, table)
        if name == "spans":
            rows.intake.write_fills()
        written[name] = table
    for name, position in {name: value for group in cursors for name, value in group.items()}.items():
        connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", [name, position])
    return written


def _stamp(name: str, table: pa.Table, rows: Rows) -> pa.Table:
    """Fills the columns that are the writer's to fill."""
    # One array of each column, before others are computed from them.
    table = table.combine_chunks()
    if "commit_seq" not in table.schema.names:
        return table
    when = np.full(table.num_rows, round(rows.committed_at * 1e6), np.int64)
    seqs = pa.array(np.full(table.num_rows, rows.seq, np.int64))
    return with_columns(table, {"commit_seq": seqs, "committed_at": pa.array(when).cast(TIME)})
