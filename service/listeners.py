"""The service's listening sockets: bound first, so that a taken port is known before anything else starts."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from catalog.instruments import Instruments
from collector.otlp.ledger import Ledger
from collector.otlp.outcome import Outcome
from collector.otlp.sender import Sender
from service.config import split_address

BACKLOG = 2048
MAX_CONNECTIONS = 2000
# From a connection's first byte, or its opening, to the end of a request's headers.
HEAD_SECONDS = 20.0
# So much of one body, and of all together, is collected before the application sees it; the rest piece by piece.
WHOLE_BODY_BYTES = 1024 * 1024
HELD_BYTES = 32 * 1024 * 1024
# How gRPC, and every other HTTP/2 client, begins.
HTTP2 = b"PRI * HTTP/2"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class AddressTaken(Exception):
    """Somebody else listens on the address, or it is none of this machine's."""


def bind(address: str) -> socket.socket:
    """A bound socket; raises AddressTaken."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = "is taken by another process" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise AddressTaken(f"{address} {why}") from None
    return listener


@dataclass(frozen=True)
class Watch:
    """What a listener bounds its connections by, and where it counts those that it closes."""

    listener: str
    metrics: Instruments
    ledger: Ledger
    max_connections: int = MAX_CONNECTIONS
    head_seconds: float = HEAD_SECONDS

    def closed(self, reason: str) -> None:
        """A connection was closed: `too_many` or `idle`."""
        self.metrics.counters.tidegauge_connections_refused_total.labels(self.listener, reason).inc()

    def spoke_http2(self) -> None:
        """A connection began as gRPC's do."""
        message = "gRPC was spoken to a port of HTTP/1.1"
        self.ledger.refused(Sender("http", path="(gRPC)"), Outcome.UNSUPPORTED, message)


@dataclass(eq=False)
class Held:
    """Bytes of bodies that all connections of a listener hold before the application sees them."""

    bytes: int = 0


class _Bounded(HttpToolsProtocol):
    """Closes connections past a number, and those that are slow to say what they want.

    It hands a body on in one piece, within bounds: each piece would wake the application up, which has to wait for
    its turn among the threads that decode.
    """

    watch: Watch
    held: Held
    _timer: asyncio.TimerHandle | None = None
    _begun = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pieces: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asks nothing of a connection yet but to hurry."""
        super().connection_made(transport)
        if len(self.connections) > self.watch.max_connections:
            self.watch.closed("too_many")
            transport.write(BUSY)
            transport.close()
            return
        self._hurry()

    def data_received(self, data: bytes) -> None:
        """Tells a gRPC client's first bytes from a broken request."""
        if not self._begun and data.startswith(HTTP2):
            self.watch.spoke_http2()
        self._begun = True
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request's first byte, also on a connection that was kept open."""
        self._hurry()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """From here on the application has its own limits."""
        self._calm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._size + len(body) > WHOLE_BODY_BYTES or self.held.bytes + len(body) > HELD_BYTES:
            self._hand_on()
            super().on_body(body)
            return
        self._pieces.append(body)
        self._size += len(body)
        self.held.bytes += len(body)

    def on_message_complete(self) -> None:
        """The end of a body."""
        self._hand_on()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._calm()
        self._hand_on()
        super().connection_lost(exc)

    def _hand_on(self) -> None:
        if self._pieces:
            self.held.bytes -= self._size
            body, self._pieces, self._size = b"".join(self._pieces), [], 0
            super().on_body(body)

    def _hurry(self) -> None:
        self._calm()
        self._timer = self.loop.call_later(self.watch.head_seconds, self._too_slow)

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self.watch.closed("idle")
        self.transport.close()


class _Server(uvicorn.Server):
    """A server among several: signals are the service's to handle."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


class HttpListener:
    """An app served on a bound socket."""

    def __init__(self, app: FastAPI, listener: socket.socket, watch: Watch) -> None:
        self._socket = listener
        self.held = Held()
        self._server = _Server(
            uvicorn.Config(
                app,
                http=type("Bounded", (_Bounded,), {"watch": watch, "held": self.held}),
                log_config=None,
                access_log=False,
                lifespan="off",
                backlog=BACKLOG,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port, also where the address said 0."""
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Returns once requests are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended at its start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Answers what is open, then closes; may be called twice."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=10)
