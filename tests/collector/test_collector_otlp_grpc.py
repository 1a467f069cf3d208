"""OTLP over a real local gRPC server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import Future

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otlp_support import KEY, FixedClock, body, counted, production_bodies
from prometheus_client import CollectorRegistry

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.otlp.grpc import AddressInUseError, GrpcServer
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable
from tests.store_kit import Store

SMALL = OtlpSettings(max_request_bytes=100_000, max_body_bytes=100_000)
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
async def server(store: Store) -> AsyncIterator[GrpcServer]:
    receiver = OtlpReceiver(SMALL, store.writer.submit, FixedClock(), store.metrics, KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.start()
    yield server
    await server.stop()
    receiver.close()


def requests(store: Store, outcome: str) -> float:
    return counted(store.metrics, "tidegauge_ingest_requests_total", transport="grpc", outcome=outcome)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["plain", "gzip"])
async def test_an_ok_means_that_the_spans_are_in_the_store(
    server: GrpcServer, store: Store, compression: grpc.Compression
) -> None:
    request = ExportTraceServiceRequest.FromString(production_bodies()[20])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = await TraceServiceStub(channel).Export(request, compression=compression)
    assert not answer.HasField("partial_success")
    assert store.sql("SELECT count(*) FROM spans")[0][0] > 0
    assert requests(store, "accepted") == 1


async def test_bad_spans_are_a_partial_success(server: GrpcServer) -> None:
    request = ExportTraceServiceRequest.FromString(production_bodies()[20])
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = await TraceServiceStub(channel).Export(request)
    assert answer.partial_success.rejected_spans == 1
    assert "trace_id is not 16 bytes" in answer.partial_success.error_message


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [(b"\xff\xff\xff", "malformed"), (production_bodies()[20][:-3], "malformed")],
    ids=["random", "truncated"],
)
async def test_a_malformed_message_is_an_invalid_argument(
    server: GrpcServer, store: Store, raw: bytes, outcome: str
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="not a protobuf ExportTraceServiceRequest") as caught:
            await channel.unary_unary(METHOD)(raw)
        await TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(production_bodies()[20]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (requests(store, outcome), requests(store, "accepted")) == (1, 1)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["plain", "bomb"])
async def test_a_message_past_the_limit_is_refused_and_the_next_is_served(
    server: GrpcServer, compression: grpc.Compression
) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=r"larger than max") as caught:
            await channel.unary_unary(METHOD)(bytes(20_000_000), compression=compression)
        await TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(production_bodies()[20]))
    assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreOverloaded("the queue is full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (StoreUnavailable("the disk is full"), grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["overloaded", "unavailable"],
)
async def test_a_store_that_refuses_tells_when_to_try_again(error: Exception, code: grpc.StatusCode) -> None:
    def submit(batch: Batch) -> "Future[Committed]":
        raise error

    receiver = OtlpReceiver(SMALL, submit, FixedClock(), Instruments(CollectorRegistry()), KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=str(error)) as caught:
            await TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(production_bodies()[20]))
    await server.stop()
    receiver.close()
    details = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    retry = RetryInfo()
    assert caught.value.code() is code
    assert details.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 2


async def test_logs_are_taken(server: GrpcServer, store: Store) -> None:
    request = ExportLogsServiceRequest.FromString(body("clients/oai-v2-latest-logs.pb.gz"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer = await LogsServiceStub(channel).Export(request)
    assert answer == ExportLogsServiceResponse()
    assert store.sql("SELECT count(*) FROM log_records") == [(12,)]


async def test_an_address_that_is_taken_is_told(server: GrpcServer, store: Store) -> None:
    receiver = OtlpReceiver(SMALL, store.writer.submit, FixedClock(), store.metrics, KEY)
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port in (other.getsockname()[1], server.port):
            second = GrpcServer(receiver, f"127.0.0.1:{port}")
            with pytest.raises(AddressInUseError, match=f"127.0.0.1:{port} cannot be listened on"):
                await second.start()
            await second.stop()
    receiver.close()


async def test_start_and_stop_may_be_called_twice(store: Store) -> None:
    receiver = OtlpReceiver(SMALL, store.writer.submit, FixedClock(), store.metrics, KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.stop()
    await server.start()
    port = server.port
    await server.start()
    assert server.port == port
    await server.stop()
    await server.stop()
    receiver.close()


async def test_the_real_grpc_exporter_delivers(store: Store) -> None:
    receiver = OtlpReceiver(OtlpSettings(), store.writer.submit, SystemClock(), store.metrics, KEY)
    server = GrpcServer(receiver, "127.0.0.1:0")
    await server.start()
    exporter = OTLPSpanExporter(endpoint=f"127.0.0.1:{server.port}", insecure=True, compression=grpc.Compression.Gzip)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("chat m", attributes={"gen_ai.operation.name": "chat"}):
        pass
    await asyncio.to_thread(provider.shutdown)
    await server.stop()
    receiver.close()
    assert store.sql("SELECT name, kind FROM spans") == [("chat m", "llm")]
