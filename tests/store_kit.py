"""A real store over a directory, and rows to put there."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from prometheus_client import CollectorRegistry

from catalog.instruments import Instruments
from store.batch import Batch, Committed
from store.database import Database
from store.reads import Reads
from store.scope import moment
from store.settings import StoreSettings
from store.tables import TABLES
from store.writer import Writer

START = 1_800_000_000.0


class HandClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Store:
    """Writer and reads over one directory; `reopen` is a restart."""

    def __init__(self, directory: Path, settings: StoreSettings) -> None:
        self.directory = directory
        self.settings = settings
        self.clock = HandClock()
        self.metrics = Instruments(CollectorRegistry())
        self._open()

    def _open(self) -> None:
        self.database = Database(self.directory, self.settings)
        self.writer = Writer(self.database, self.clock, self.metrics, self.settings)
        self.reads = Reads(self.database)

    def close(self) -> None:
        self.writer.close()
        self.database.close()

    def reopen(self) -> None:
        self.close()
        self._open()

    def put(self, table: str, *rows: dict[str, Any], **cursors: int) -> Committed:
        return self.writer.submit(Batch({table: as_table(table, rows)}, cursors)).result(timeout=20)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.database.cursor().execute(query).fetchall()


def as_table(name: str, rows: Any) -> pa.Table:
    """Rows with any of the table's columns as an Arrow table."""
    given = {key for row in rows for key in row}
    schema = pa.schema([field for field in TABLES[name] if field.name in given])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def span(span_id: str, *, trace: str = "t1", at: float = 0.0, lasts: float = 1.0, **columns: Any) -> dict[str, Any]:
    """A span `at` seconds after START."""
    return {
        "trace_id": trace,
        "span_id": span_id,
        "name": "chat",
        "kind": "llm",
        "vantage": "client",
        "start_time": moment(START + at),
        "end_time": moment(START + at + lasts),
        "duration_s": lasts,
        "status": "ok",
        **columns,
    }
