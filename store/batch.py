"""What is handed to the writer: rows of one or more tables that are committed together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from store.tables import TABLES


@dataclass(frozen=True)
class Batch:
    """Rows by table name, and the positions of sequential readers that move with them, in one transaction."""

    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    cursors: Mapping[str, int] = field(default_factory=dict)

    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(table.num_rows for table in self.tables.values())


@dataclass(frozen=True)
class Committed:
    """What became of a batch: rows stored and dropped as duplicates, by table, and the commit's number."""

    rows: Mapping[str, int]
    duplicates: Mapping[str, int]
    seq: int


def conform(name: str, table: pa.Table) -> pa.Table:
    """`table` with the columns, order and types of the named table; what it lacks is null.

    Raises ValueError for a table or a column that does not exist, or values that do not fit its type.
    """
    given = table.schema
    last = _LAST.get(name)
    # Submissions of a kind look alike, and comparing two schemas is a hundred times quicker than planning.
    if last is None or not last[0].equals(given):
        last = _LAST[name] = given, _planned(name, given)
    columns = table.columns
    rows = table.num_rows
    return pa.Table.from_arrays(
        [pa.nulls(rows, field.type) if at < 0 else _cast(name, columns[at], field) for field, at in last[1]],
        schema=TABLES[name],
    )


# Of each table the last submission's schema, and the column that each field is taken from; -1 is none.
_LAST: dict[str, tuple[pa.Schema, list[tuple[pa.Field, int]]]] = {}


def _planned(name: str, given: pa.Schema) -> list[tuple[pa.Field, int]]:
    schema = TABLES.get(name)
    if schema is None:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    places = {column: place for place, column in enumerate(given.names)}
    if unknown := places.keys() - set(schema.names):
        raise ValueError(f"table {name} has no column {', '.join(sorted(unknown))}")
    return [(field, places.get(field.name, -1)) for field in schema]


def _cast(name: str, column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.type.equals(field.type):
        return column
    try:
        return pc.cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{name}.{field.name} takes {field.type}: {error}") from error


def with_columns(table: pa.Table, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """`table` with other values in some of its columns."""
    given = zip(table.column_names, table.columns, strict=True)
    return pa.Table.from_arrays([columns.get(name, column) for name, column in given], schema=table.schema)
