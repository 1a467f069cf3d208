"""The service's listening sockets: bound first, so that a taken port is known before anything else starts."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.config import split_address

BACKLOG = 2048


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


class _Server(uvicorn.Server):
    """A server among several: signals are the service's to handle."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


class HttpListener:
    """An app served on a bound socket."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        self._socket = listener
        self._server = _Server(
            uvicorn.Config(
                app,
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
