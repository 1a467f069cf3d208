"""Tables as streams of Arrow record batches, for notebooks and other programs, while the service runs.

DuckDB's file is one process's alone, and its extensions are not loaded (nothing is fetched at run time), so others
read through the service.  A stream is one snapshot, and takes the memory of a few batches whatever the table's size.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import sleep
from types import MappingProxyType

import duckdb
import pyarrow as pa

from store.database import Database
from store.scope import Scope, Selection, where
from store.tables import TABLES, TIME

BATCH_ROWS = 4_096
# The writer's own: numbers of commits say something about other tenants.
HIDDEN = frozenset({"commit_seq"})
# What can be exported, and the time by which it is chosen.
TIMES = MappingProxyType(
    {
        "requests": "start_time",
        "spans": "start_time",
        "log_records": "time",
        "scores": "subject_time",
        "engine_state": "time",
        "gpu_state": "time",
        "drift_results": "round_time",
        "incidents": "started_at",
        "deployments": "time",
        "usage": "hour",
    }
)


class UnknownExport(Exception):
    """A table or a column that cannot be exported; names those that can."""


class NotByTenant(Exception):
    """A table that says nothing of tenants, asked for by somebody who may see only some."""


@dataclass(frozen=True)
class Export:
    """Batches, all of this schema.  `close` may be called at any time, and has to be."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    connection: duckdb.DuckDBPyConnection

    def close(self) -> None:
        """Ends the snapshot; waits for who reads a batch just now."""
        while True:
            with suppress(duckdb.Error):
                self.connection.interrupt()
            try:
                self.connection.close()
                return
            except duckdb.ResourceInUseException:
                sleep(0.01)
            except duckdb.Error:
                return


def columns_of(table: str) -> list[str]:
    """The columns that users see.  Raises UnknownExport."""
    if table not in TIMES:
        raise UnknownExport(f"{table!r} cannot be exported; there are {', '.join(TIMES)}")
    return [name for name in TABLES["spans" if table == "requests" else table].names if name not in HIDDEN]


def export(
    database: Database, scope: Scope, table: str, selection: Selection, columns: Sequence[str] | None = None
) -> Export:
    """The rows of a table that the scope may see, in the order of their arrival.

    `selection` has a range of the table's time and perhaps a tenant; `columns` are all that users see unless given.
    Raises UnknownExport, NotByTenant, and UnknownFilter for a filter other than the tenant.
    """
    known = columns_of(table)
    by_tenant = "tenant" in known
    if scope.tenants is not None and not by_tenant:
        raise NotByTenant(f"{table} says nothing of tenants; it takes a key that is bound to none")
    for name in columns or ():
        if name not in known:
            raise UnknownExport(f"{table} has no column {name!r}; there are {', '.join(known)}")
    chosen = ", ".join(f'"{name}"' for name in columns or known)
    allowed = frozenset({"tenant"}) if by_tenant else frozenset()
    condition, parameters = where(scope, selection, time=TIMES[table], allowed=allowed, aliases={})
    connection = database.cursor()
    try:
        relation = connection.sql(f"SELECT {chosen} FROM {table} WHERE {condition}", params=parameters)
        reader = relation.to_arrow_reader(BATCH_ROWS)
    except BaseException:
        connection.close()
        raise
    schema = pa.schema([_in_utc(field) for field in reader.schema])
    return Export(schema, (batch.cast(schema) for batch in reader), connection)


def _in_utc(field: pa.Field) -> pa.Field:
    """DuckDB labels times with the machine's zone."""
    return field.with_type(TIME) if pa.types.is_timestamp(field.type) and field.type.tz else field
