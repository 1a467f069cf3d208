"""The real exporters against a store that refuses for a while: they try again, and nothing is lost or doubled."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import uvicorn
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otlp_support import KEY, FixedClock, counted, production_bodies

from catalog.clock import SystemClock
from collector.otlp.grpc import GrpcServer
from collector.otlp.http import router
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable
from tests.store_kit import Store

SPANS = 40
SOON = OtlpSettings(retry_after_seconds=0.1)


class Hesitant:
    """A store that refuses, then stores without saying so, then works."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked = 0

    def submit(self, batch: Batch) -> "Future[Committed]":
        self.asked += 1
        if self.asked == 1:
            raise StoreOverloaded("the queue is full")
        future = self._store.writer.submit(batch)
        if self.asked > 2:
            return future
        # Committed, and the acknowledgement lost: what comes again must not be stored again.
        future.result(20)
        lost: Future[Committed] = Future()
        lost.set_exception(StoreUnavailable("nobody knows"))
        return lost


def export(exporter: Any) -> None:
    """Sends SPANS spans with the real SDK, and waits until they are sent."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(SPANS):
        with tracer.start_as_current_span(f"span {number}"):
            pass
    provider.shutdown()


def stored_once(store: Store, hesitant: Hesitant) -> None:
    assert store.sql("SELECT count(*), count(DISTINCT span_id) FROM spans") == [(SPANS, SPANS)]
    assert hesitant.asked == 3
    assert {
        status: counted(store.metrics, "tidegauge_ingest_spans_total", status=status)
        for status in ("stored", "duplicate", "overloaded", "failed")
    } == {"stored": 0, "duplicate": SPANS, "overloaded": SPANS, "failed": SPANS}


@contextmanager
def http_server(receiver: OtlpReceiver) -> Iterator[str]:
    app = FastAPI()
    app.include_router(router(receiver))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_over_http_a_span_is_stored_once_however_often_it_is_sent(store: Store) -> None:
    hesitant = Hesitant(store)
    receiver = OtlpReceiver(SOON, hesitant.submit, SystemClock(), store.metrics, KEY)
    with http_server(receiver) as url:
        export(HttpExporter(endpoint=f"{url}/v1/traces"))
    receiver.close()
    stored_once(store, hesitant)


async def test_over_grpc_a_span_is_stored_once_however_often_it_is_sent(store: Store) -> None:
    hesitant = Hesitant(store)
    receiver = OtlpReceiver(SOON, hesitant.submit, SystemClock(), store.metrics, KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.start()
    await asyncio.to_thread(export, GrpcExporter(endpoint=f"127.0.0.1:{server.port}", insecure=True))
    await server.stop()
    receiver.close()
    stored_once(store, hesitant)


# --- what gRPC's core refuses ---------------------------------------------------------------------------------------

SMALL = OtlpSettings(max_request_bytes=100_000, max_body_bytes=100_000)


@pytest.fixture
async def server(store: Store) -> AsyncIterator[GrpcServer]:
    receiver = OtlpReceiver(SMALL, store.writer.submit, FixedClock(), store.metrics, KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.start()
    yield server
    await server.stop()
    receiver.close()


async def counted_once(store: Store, outcome: str) -> bool:
    """Whether one call ended so; its sender may know it before we do."""
    for _ in range(500):
        if seen := counted(store.metrics, "tidegauge_ingest_requests_total", transport="grpc", outcome=outcome):
            return seen == 1
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("size", "code", "outcome"),
    [
        (150_000, grpc.StatusCode.INVALID_ARGUMENT, "too_large"),
        (5_000_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "incomplete"),
    ],
    ids=["a little", "far"],
)
async def test_a_message_past_the_limit_is_counted_whoever_refuses_it(
    server: GrpcServer, store: Store, size: int, code: grpc.StatusCode, outcome: str
) -> None:
    method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=r"limit|larger than max") as caught:
            await channel.unary_unary(method)(bytes(size))
        await TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(production_bodies()[20]))
    assert caught.value.code() is code
    assert await counted_once(store, outcome)
    assert await counted_once(store, "accepted")


async def test_a_method_that_is_none_is_counted(server: GrpcServer, store: Store) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="not found") as caught:
            await channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceServce/Export")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await counted_once(store, "not_found")
