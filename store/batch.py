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
    schema = TABLES.get(name)
    if schema is None:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    unknown = set(table.column_names) - set(schema.names)
    if unknown:
        raise ValueError(f"table {name} has no column {', '.join(sorted(unknown))}")
    columns = [_column(name, table, field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(name: str, table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    if column.type == field.type:
        return column
    try:
        return pc.cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{name}.{field.name} takes {field.type}: {error}") from error
