"""Connections that would never end, and more of them than there is room for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.otlp.ledger import Ledger
from service.listeners import HttpListener, Watch, bind

ASK = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n"
SLOW = b"GET /hello HTTP/1.1\r\nhost: local"
Start = Callable[..., Awaitable[HttpListener]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def metrics() -> Instruments:
    return Instruments(CollectorRegistry())


@pytest.fixture
def ledger(metrics: Instruments) -> Ledger:
    return Ledger(metrics, SystemClock())


@pytest.fixture
async def start(metrics: Instruments, ledger: Ledger) -> AsyncIterator[Start]:
    made: list[HttpListener] = []
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        # Longer than a header may take: a request that was read is not hurried.
        await asyncio.sleep(0.4)
        return "hello"

    async def starting(max_connections: int = 100, head_seconds: float = 20.0) -> HttpListener:
        made.append(
            HttpListener(app, bind("127.0.0.1:0"), Watch("http", metrics, ledger, max_connections, head_seconds))
        )
        await made[-1].start()
        return made[-1]

    yield starting
    for listener in made:
        await listener.stop()


async def opened(listener: HttpListener, sent: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


def refused(metrics: Instruments, reason: str) -> float:
    labels = {"listener": "http", "reason": reason}
    return metrics.registry.get_sample_value("tidegauge_connections_refused_total", labels) or 0.0


@pytest.mark.parametrize("sent", [b"", SLOW], ids=["silent", "half a header"])
async def test_a_connection_that_does_not_say_what_it_wants_is_closed(
    start: Start, metrics: Instruments, sent: bytes
) -> None:
    listener = await start(head_seconds=0.2)
    reader, writer = await opened(listener, sent)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert refused(metrics, "idle") == 1
    writer.close()


async def test_a_slow_second_request_on_a_connection_is_closed_too(start: Start, metrics: Instruments) -> None:
    listener = await start(head_seconds=0.2)
    reader, writer = await opened(listener, ASK)
    assert (await asyncio.wait_for(reader.readuntil(b'"hello"'), 10)).startswith(b"HTTP/1.1 200")
    await asyncio.sleep(0.5)
    # It is kept open between requests, for longer than a header may take.
    assert refused(metrics, "idle") == 0
    writer.write(SLOW)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert refused(metrics, "idle") == 1
    writer.close()


async def test_past_the_bound_a_connection_is_told_to_come_again(start: Start, metrics: Instruments) -> None:
    listener = await start(max_connections=2)
    held = [await opened(listener) for _ in range(2)]
    await asyncio.sleep(0.1)
    reader, writer = await opened(listener, ASK)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert (answer.partition(b"\r\n")[0], b"retry-after: 5" in answer) == (b"HTTP/1.1 503 Service Unavailable", True)
    assert refused(metrics, "too_many") == 1
    writer.close()
    for _, each in held:
        each.close()
    await asyncio.sleep(0.1)
    reader, writer = await opened(listener, ASK)
    assert (await asyncio.wait_for(reader.readuntil(b'"hello"'), 10)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_grpc_spoken_to_an_http_port_is_in_the_ledger(start: Start, ledger: Ledger) -> None:
    listener = await start()
    reader, writer = await opened(listener, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
    ((key, entry),) = ledger.recent().requests.items()
    assert (key.path, key.outcome, entry.example) == ("(gRPC)", "unsupported", "gRPC was spoken to a port of HTTP/1.1")
    writer.close()
