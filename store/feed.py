"""Arrow tables into DuckDB's tables, by statements that are planned once.

Registering a table for each statement costs 1.5 ms (a view of 70 columns is made and dropped, and pandas is looked for
where there is none), planning the statement 2 ms: of a commit of 800 spans, a third.
"""

from collections.abc import Callable
from datetime import datetime

import duckdb
import pyarrow as pa


class _Source:
    """What a prepared statement reads: whatever table it holds when the statement runs."""

    def __init__(self, schema: pa.Schema) -> None:
        self._empty = schema.empty_table()
        self.table = self._empty

    def clear(self) -> None:
        self.table = self._empty

    def __arrow_c_schema__(self) -> object:
        return self._empty.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class Statement:
    """A statement over rows that are given each time.  One connection's, in one thread."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, sql: Callable[[str], str]
    ) -> None:
        """Prepares what `sql` makes of the rows' relation; not within a transaction, whose rollback would forget it."""
        self._connection = connection
        self._source = _Source(schema)
        connection.register(f"{name}_rows", self._source)
        connection.execute(f"PREPARE {name} AS {sql(f'{name}_rows')}")
        self._name = name

    def run(self, rows: pa.Table, *parameters: datetime | int) -> None:
        """Executes it over `rows`, which have exactly the schema; raises duckdb.Error."""
        # One batch of rows is one vector; four small ones cost four times.
        self._source.table = rows.combine_chunks()
        try:
            values = ", ".join(map(_literal, parameters))
            self._connection.execute(f"EXECUTE {self._name}{f'({values})' if values else ''}")
        finally:
            self._source.clear()


def _literal(value: datetime | int) -> str:
    """A parameter as SQL: EXECUTE takes no others."""
    return f"TIMESTAMPTZ '{value.isoformat()}'" if isinstance(value, datetime) else str(int(value))
