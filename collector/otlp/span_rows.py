"""Rows of `spans` as the decoder makes them: their columns, their order, and their Arrow table."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from store.tables import SPANS

# The writer's to fill.
WRITERS = frozenset({"request_id", "is_request", "commit_seq", "committed_at"})
SCHEMA = pa.schema([column for column in SPANS if column.name not in WRITERS and not column.name.startswith("engine_")])
Row = dict[str, Any]
# Every row begins as a copy of this, so that the values of all have the schema's order.
EMPTY: Row = dict.fromkeys(SCHEMA.names)


def table(rows: Sequence[Row]) -> pa.Table:
    """The rows with columns SCHEMA; `attributes` is UTF-8 text in bytes."""
    columns = zip(*(row.values() for row in rows), strict=True) if rows else [()] * len(SCHEMA)
    made = [_column(values, field) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(made, schema=SCHEMA)


def _column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    # Most requests leave most columns empty: those cost nothing.
    if values.count(None) == len(values):
        return _nulls(len(values), field.type)
    if field.name == "attributes":
        return pa.array(values, pa.binary()).view(pa.string())
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:
        # JSON in a string may hold half a surrogate pair, which no UTF-8 can.
        return pa.array([value and value.encode("utf-8", "replace").decode() for value in values], field.type)


@lru_cache(maxsize=4096)
def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(rows, kind)
