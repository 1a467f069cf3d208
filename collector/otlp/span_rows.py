"""Rows of `spans` as the decoder makes them: their columns, their order, and their Arrow table."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from store.tables import SPANS

# The writer's to fill.
WRITERS = frozenset({"request_id", "is_request", "commit_seq", "committed_at"})
SCHEMA = pa.schema([column for column in SPANS if column.name not in WRITERS and not column.name.startswith("engine_")])
KINDS: tuple[pa.DataType, ...] = tuple(SCHEMA.types)
Row = dict[str, Any]
# Exporters send batches of a few sizes; columns of nulls are kept for those.
FEW = 1024
# Most name one service and one kind; columns of one short text are kept, too.
SHORT = 64
# Every row begins as a copy of this, so that the values of all have the schema's order.
EMPTY: Row = dict.fromkeys(SCHEMA.names)


def table(rows: Sequence[Row]) -> pa.Table:
    """The rows with columns SCHEMA; `attributes` is UTF-8 text in bytes."""
    if not rows:
        return SCHEMA.empty_table()
    count = len(rows)
    columns = zip(*[row.values() for row in rows], strict=True)
    # Most requests leave most columns empty: those cost nothing.
    made = [
        nothing if values.count(None) == count else _column(values, kind)
        for values, kind, nothing in zip(
            columns, KINDS, _nulls(count) if count <= FEW else _made_nulls(count), strict=True
        )
    ]
    return pa.Table.from_arrays(made, schema=SCHEMA)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    first = values[0]
    if type(first) is bytes:
        return pa.array(values, pa.binary()).view(kind)
    try:
        if 1 < len(values) <= FEW and type(first) is str and len(first) <= SHORT and values.count(first) == len(values):
            return _same(first, len(values))
        return pa.array(values, kind)
    except UnicodeEncodeError:
        # JSON in a string may hold half a surrogate pair, which no UTF-8 can.
        return pa.array([value and value.encode("utf-8", "replace").decode() for value in values], kind)


def _made_nulls(rows: int) -> tuple[pa.Array, ...]:
    return tuple(pa.nulls(rows, kind) for kind in KINDS)


@lru_cache(maxsize=256)
def _same(text: str, rows: int) -> pa.Array:
    return pa.array([text] * rows, pa.string())


_nulls = lru_cache(maxsize=64)(_made_nulls)
