"""Tables as Arrow streams: `GET /api/v1/export/{table}`; backups and erasure, for commands on this machine."""

import asyncio
import io
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Body, Depends, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.conversions import hashed
from service.api.answers import Answer
from service.api.parameters import Text, Window, once
from service.api.problems import Problem
from service.auth import Caller, Gate, Role
from store.backup import CannotBackUp, copy
from store.database import Database
from store.erasure import erase
from store.scope import Selection, moment
from store.snapshots import TIMES, Export, NotByTenant, UnknownExport, export

ARROW = "application/vnd.apache.arrow.stream"
# Each holds a snapshot, and a thread while its client reads.
MAX_EXPORTS = 4


class Chosen(Window):
    """Which rows and columns."""

    tenant: Text | None = None
    columns: Text | None = Field(None, description="Columns, separated by commas; all unless given")


class Wanted(BaseModel):
    """Where a backup goes."""

    model_config = ConfigDict(extra="forbid")

    out: str = Field(description="directory on the service's machine, empty or new")


class Person(BaseModel):
    """Whom to erase."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(min_length=1, max_length=4000, description="the id as applications send it")


def router(database: Database, gate: Gate, clock: Clock, metrics: Instruments, user_key: bytes) -> APIRouter:
    """The routes.  `user_key` is what user ids are hashed with."""
    routes = APIRouter(tags=["export"])
    room = threading.BoundedSemaphore(MAX_EXPORTS)
    one_backup = threading.Lock()

    @routes.get("/export/{table}", dependencies=[Depends(once)], response_class=StreamingResponse)
    def exported(
        caller: Annotated[Caller, Depends(gate.dependency(Role.READ))], table: str, chosen: Annotated[Chosen, Query()]
    ) -> Response:
        """The rows that the key may see, one snapshot, as an Arrow IPC stream; `pyarrow.ipc.open_stream` reads it."""
        start, end = chosen.range(clock.now())
        selection = Selection({} if chosen.tenant is None else {"tenant": chosen.tenant}, start, end)
        columns = [name.strip() for name in chosen.columns.split(",")] if chosen.columns else None
        if not room.acquire(blocking=False):
            raise Problem(503, f"{MAX_EXPORTS} exports are under way; try again.", headers={"Retry-After": "5"})
        try:
            rows = export(database, caller.scope, table, selection, columns)
        except UnknownExport as error:
            room.release()
            raise Problem(404 if table not in TIMES else 400, str(error)) from None
        except NotByTenant as error:
            room.release()
            raise Problem(403, str(error)) from None
        except BaseException:
            room.release()
            raise
        return _Streamed(rows, room)

    @routes.post("/admin/backup", status_code=201)
    def backup(caller: Annotated[Caller, Depends(gate.local())], wanted: Annotated[Wanted, Body()]) -> Response:
        """Copies the database while it is written; the command that asked makes a backup of it."""
        out = Path(wanted.out)
        if not out.is_absolute():
            raise Problem(422, f"out: {wanted.out!r} is not an absolute path.")
        if not one_backup.acquire(blocking=False):
            raise Problem(409, "A backup is under way.")
        try:
            began = clock.now()
            copied = copy(database, out)
        except CannotBackUp as error:
            raise Problem(409, str(error)) from None
        finally:
            one_backup.release()
        metrics.gauges.tidegauge_store_backup_timestamp_seconds.set(began)
        return Answer({"bytes": copied, "made_at": began}, 201)

    @routes.post("/admin/erase")
    def erased(caller: Annotated[Caller, Depends(gate.local())], person: Annotated[Person, Body()]) -> Response:
        """Removes a user from every table, and says what went."""
        return Answer(asdict(erase(database, hashed(person.user, user_key), moment(clock.now()), caller.actor)))

    return routes


class _Streamed(StreamingResponse):
    """An export on its way; gives its snapshot and its room back when it ends or its reader goes."""

    def __init__(self, rows: Export, room: threading.BoundedSemaphore) -> None:
        super().__init__(ipc(rows), media_type=ARROW)
        self._rows = rows
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._room.release()
            await asyncio.shield(asyncio.to_thread(self._rows.close))


class _Pieces(io.RawIOBase):
    """A file that gives away what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, piece: Any) -> int:
        taken = bytes(piece)
        self._pieces.append(taken)
        self._written += len(taken)
        return len(taken)

    def take(self) -> bytes:
        """All that was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def ipc(rows: Export) -> Iterator[bytes]:
    """An Arrow IPC stream, a piece a batch."""
    pieces = _Pieces()
    with pa.ipc.new_stream(pieces, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for batch in rows.batches:
            writer.write_batch(batch)
            yield pieces.take()
    yield pieces.take()
