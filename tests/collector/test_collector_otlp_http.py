"""OTLP over a real local HTTP server, into a real store."""

import asyncio
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pyarrow as pa
import pytest
import uvicorn
from fastapi import FastAPI
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from otlp_support import KEY, RECORDED_NOW, FixedClock, body, counted, production_bodies
from prometheus_client import CollectorRegistry

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.otlp.http import router
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable
from tests.store_kit import Store

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
SMALL = OtlpSettings(
    max_request_bytes=200_000, max_body_bytes=1_000_000, max_inflight_bytes=4_000_000, body_timeout_seconds=0.5
)


@contextmanager
def serving(receiver: OtlpReceiver) -> Iterator[str]:
    """The receiver behind uvicorn on a free local port."""
    app = FastAPI()
    app.include_router(router(receiver))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        receiver.close()
        listener.close()


@dataclass
class Served:
    """A running receiver."""

    url: str
    metrics: Instruments
    store: Store

    def post(self, content: Any, headers: dict[str, str], path: str = "/v1/traces") -> httpx.Response:
        return httpx.post(self.url + path, content=content, headers=headers, timeout=20)

    def requests(self, outcome: str) -> float:
        return counted(self.metrics, "tidegauge_ingest_requests_total", transport="http", outcome=outcome)

    def spans(self, status: str) -> float:
        return counted(self.metrics, "tidegauge_ingest_spans_total", status=status)

    def stored(self) -> int:
        return int(self.store.sql("SELECT count(*) FROM spans")[0][0])


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    receiver = OtlpReceiver(SMALL, store.writer.submit, FixedClock(), store.metrics, KEY)
    with serving(receiver) as url:
        yield Served(url, store.metrics, store)


def spans_in(raw: bytes) -> int:
    request = ExportTraceServiceRequest.FromString(raw)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def test_a_200_means_that_the_spans_are_in_the_store(served: Served) -> None:
    raw = production_bodies()[20]
    response = served.post(raw, PROTOBUF)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(response.content) == ExportTraceServiceResponse()
    assert served.stored() == served.spans("stored") == spans_in(raw) > 0


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:])),
        ("deflate", zlib.compress),
        ("deflate", lambda raw: zlib.compress(raw)[2:-4]),
        ("zstd", lambda raw: pa.compress(raw, codec="zstd", asbytes=True)),
        ("identity", bytes),
    ],
    ids=["gzip", "gzip-two-members", "deflate", "deflate-raw", "zstd", "identity"],
)
def test_every_encoding_stores_the_same(served: Served, encoding: str, pack: Any) -> None:
    raw = production_bodies()[30]
    assert served.post(pack(raw), PROTOBUF | {"Content-Encoding": encoding}).status_code == 200
    assert served.stored() == spans_in(raw)


def test_json_with_a_chunked_body_as_node_sends_it_is_stored(served: Served) -> None:
    raw = body("clients/vercel-ai.json.gz")
    chunks = (raw[start : start + 1000] for start in range(0, len(raw), 1000))
    response = served.post(chunks, JSON)
    assert (response.status_code, response.json()) == (200, {})
    assert served.stored() == len(json.loads(raw)["resourceSpans"][0]["scopeSpans"][0]["spans"]) + sum(
        len(scope["spans"]) for scope in json.loads(raw)["resourceSpans"][0]["scopeSpans"][1:]
    )


def test_a_request_that_is_sent_again_is_acknowledged_and_stored_once(served: Served) -> None:
    raw = production_bodies()[25]
    assert [served.post(raw, PROTOBUF).status_code for _ in range(3)] == [200, 200, 200]
    assert served.stored() == served.spans("stored") == spans_in(raw)
    assert served.spans("duplicate") == 2 * spans_in(raw)


def test_bad_spans_are_a_partial_success_and_the_others_are_stored(served: Served) -> None:
    request = ExportTraceServiceRequest.FromString(production_bodies()[40])
    spans = request.resource_spans[0].scope_spans[0].spans
    good = spans_in(request.SerializeToString())
    for change in ("id", "zero", "ends", "future"):
        span = spans.add()
        span.CopyFrom(spans[0])
        span.span_id = b"12345678" if change != "id" else b"123"
        if change == "zero":
            span.trace_id = bytes(16)
        if change == "ends":
            span.end_time_unix_nano = span.start_time_unix_nano - 1
        if change == "future":
            span.end_time_unix_nano = int((RECORDED_NOW + 10 * 86_400) * 1e9)
    response = served.post(request.SerializeToString(), PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(response.content).partial_success
    assert (response.status_code, partial.rejected_spans) == (200, 4)
    assert partial.error_message == (
        f"4 of {good + 4} spans rejected: 1: it ends before it starts; 1: it ends in the future; "
        "1: span_id is not 8 bytes, or all zero; 1: trace_id is not 16 bytes, or all zero"
    )
    assert (served.stored(), served.spans("rejected"), served.requests("partial")) == (good, 4, 1)


BOMB = gzip.compress(bytes(50_000_000), 9)
DEEP = b'{"resourceSpans":' + b"[" * 90_000 + b"]" * 90_000 + b"}"
NESTED_VALUE = b'{"resourceSpans":[{"resource":{"attributes":[{"key":"a","value":%s}]}}]}' % (
    b'{"arrayValue":{"values":[' * 300 + b"]}}" * 300
)
NOT_UTF8 = b"\x0a\x0b\x12\x09\x0a\x07\x12\x05\x0a\x03\xff\xfe\xfd"


@pytest.mark.parametrize(
    ("content", "headers", "status", "outcome", "says"),
    [
        (production_bodies()[20][:-7], PROTOBUF, 400, "malformed", "not a protobuf ExportTraceServiceRequest"),
        (bytes(range(255)) * 4, PROTOBUF, 400, "malformed", "not a protobuf ExportTraceServiceRequest"),
        (NOT_UTF8, PROTOBUF, 400, "malformed", "a string in it is not UTF-8"),
        (b'{"resourceSpans": []}', PROTOBUF, 400, "malformed", "looks like JSON"),
        (gzip.compress(b"x"), PROTOBUF, 400, "malformed", "looks like gzip"),
        (b"{", JSON, 400, "malformed", "not JSON: "),
        (b"[1]", JSON, 400, "malformed", "not an object"),
        (b'{"resourceSpans": 7}', JSON, 400, "malformed", "not ExportTraceServiceRequest"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[7]}]}]}', JSON, 400, "malformed", "ExportTraceServiceRequest"),
        (b'{"a": "\xff"}', JSON, 400, "malformed", "not UTF-8 at byte"),
        (DEEP, JSON, 400, "malformed", "nested too deeply"),
        (NESTED_VALUE, JSON, 400, "malformed", ""),
        (b"not gzip", PROTOBUF | {"Content-Encoding": "gzip"}, 400, "malformed", "not gzip"),
        (gzip.compress(b"abcdef")[:-9], PROTOBUF | {"Content-Encoding": "gzip"}, 400, "malformed", "cut off"),
        (b"not zstd", PROTOBUF | {"Content-Encoding": "zstd"}, 400, "malformed", "not zstd"),
        (BOMB, PROTOBUF | {"Content-Encoding": "gzip"}, 413, "too_large", "inflates to more than 1000000 bytes"),
        (bytes(200_001), PROTOBUF, 413, "too_large", "more than 200000 bytes"),
        (b"", PROTOBUF | {"Content-Encoding": "br"}, 415, "unsupported", "Content-Encoding 'br' is not read"),
        (b"", {"Content-Type": "text/plain"}, 415, "unsupported", "Content-Type 'text/plain' is not read"),
        (b"", {}, 415, "unsupported", "send application/x-protobuf or application/json"),
    ],
    ids=[
        "truncated",
        "random",
        "protobuf-not-utf8",
        "json-as-protobuf",
        "gzip-unannounced",
        "half-json",
        "json-list",
        "json-wrong-field",
        "json-span-is-number",
        "json-not-utf8",
        "json-deep",
        "json-deep-value",
        "not-gzip",
        "gzip-cut-off",
        "not-zstd",
        "zip-bomb",
        "too-large",
        "encoding",
        "content-type",
        "no-content-type",
    ],
)
def test_a_bad_request_gets_its_status_and_a_metric_and_the_next_one_is_served(
    served: Served, content: bytes, headers: dict[str, str], status: int, outcome: str, says: str
) -> None:
    response = served.post(content, headers)
    assert (response.status_code, served.requests(outcome)) == (status, 1)
    if headers.get("Content-Type") == "application/x-protobuf":
        message = Status.FromString(response.content).message
    else:
        message = response.json()["message"]
    assert says in message
    assert served.post(production_bodies()[20], PROTOBUF).status_code == 200


def test_what_bodies_held_is_given_back(served: Served) -> None:
    served.post(BOMB, PROTOBUF | {"Content-Encoding": "gzip"})
    served.post(b"{", JSON)
    served.post(production_bodies()[20], PROTOBUF)
    assert counted(served.metrics, "tidegauge_ingest_inflight_bytes") == 0


def test_a_wrong_method_is_told_in_otlps_form(served: Served) -> None:
    response = httpx.get(served.url + "/v1/traces")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"code": 12, "message": "GET is not served here; send POST"}


def test_a_body_that_never_ends_meets_its_deadline(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
        )
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not end within 0.5 s" in answer
    assert served.requests("timeout") == 1


def test_a_sender_that_hangs_up_changes_nothing(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nabc")
    assert served.post(production_bodies()[20], PROTOBUF).status_code == 200


def test_a_huge_attribute_is_cut_and_says_so(store: Store) -> None:
    settings = OtlpSettings(max_attribute_bytes=1000)
    receiver = OtlpReceiver(settings, store.writer.submit, FixedClock(), store.metrics, KEY)
    request = ExportTraceServiceRequest.FromString(production_bodies()[20])
    chat = next(s for r in request.resource_spans for sc in r.scope_spans for s in sc.spans if s.name == "openai.chat")
    chat.attributes.add(key="huge").value.string_value = "x" * 100_000
    with serving(receiver) as url:
        response = httpx.post(url + "/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(response.content).partial_success
    assert (partial.rejected_spans, partial.error_message) == (0, "1 attributes were longer than allowed, and cut")
    rows = store.sql(f"SELECT attributes FROM spans WHERE span_id = '{chat.span_id.hex()}'")
    kept = json.loads(rows[0][0])
    assert (kept["span"]["huge"], kept["truncated"]) == ("x" * 1000, {"huge": 99_000})
    assert counted(store.metrics, "tidegauge_ingest_truncated_attributes_total") == 1


def test_logs_are_taken(served: Served) -> None:
    answer = served.post(body("clients/oai-v2-latest-logs.pb.gz"), PROTOBUF, "/v1/logs")
    assert (answer.status_code, ExportLogsServiceResponse.FromString(answer.content)) == (
        200,
        ExportLogsServiceResponse(),
    )
    assert counted(served.metrics, "tidegauge_ingest_log_records_total", status="stored") == 12
    assert served.post(b"\xff\xff", PROTOBUF, "/v1/logs").status_code == 400


def test_metrics_are_taken(served: Served) -> None:
    answer = served.post(body("clients/oai-v2-latest-metrics.pb.gz"), PROTOBUF, "/v1/metrics")
    assert (answer.status_code, ExportMetricsServiceResponse.FromString(answer.content)) == (
        200,
        ExportMetricsServiceResponse(),
    )
    assert counted(served.metrics, "tidegauge_ingest_metric_points_total", status="served") == 9
    assert served.post(b"\xff\xff", PROTOBUF, "/v1/metrics").status_code == 400


class RefusingStore:
    """Refuses as a full or closed store does."""

    def __init__(self, error: Exception, late: bool) -> None:
        self.error = error
        self.late = late

    def submit(self, batch: Batch) -> "Future[Committed]":
        if not self.late:
            raise self.error
        future: Future[Committed] = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "late", "status", "code", "outcome", "spans"),
    [
        (StoreOverloaded("the queue is full"), False, 429, 8, "overloaded", "overloaded"),
        (StoreUnavailable("the disk is full"), False, 503, 14, "unavailable", "failed"),
        (StoreUnavailable("the disk is full"), True, 503, 14, "unavailable", "failed"),
        (RuntimeError("nobody foresaw this, prompt: hello"), True, 500, 13, "error", "failed"),
    ],
    ids=["overloaded", "closed", "disk-full", "unforeseen"],
)
def test_a_store_that_refuses_tells_the_sender_to_try_again(
    error: Exception, late: bool, status: int, code: int, outcome: str, spans: str
) -> None:
    metrics = Instruments(CollectorRegistry())
    receiver = OtlpReceiver(SMALL, RefusingStore(error, late).submit, FixedClock(), metrics, KEY)
    raw = production_bodies()[20]
    with serving(receiver) as url:
        response = httpx.post(url + "/v1/traces", content=raw, headers=PROTOBUF)
    told = Status.FromString(response.content)
    assert (response.status_code, told.code) == (status, code)
    assert response.headers.get("retry-after") == ("2" if status in (429, 503) else None)
    assert "prompt" not in told.message
    assert counted(metrics, "tidegauge_ingest_requests_total", transport="http", outcome=outcome) == 1
    assert counted(metrics, "tidegauge_ingest_spans_total", status=spans) == spans_in(raw)


async def test_a_sender_that_goes_before_the_commit_is_still_counted() -> None:
    metrics = Instruments(CollectorRegistry())
    future: Future[Committed] = Future()
    submitted = threading.Event()

    def submit(batch: Batch) -> "Future[Committed]":
        submitted.set()
        return future

    receiver = OtlpReceiver(SMALL, submit, FixedClock(), metrics, KEY)
    raw = production_bodies()[20]
    waiting = asyncio.create_task(receiver.receive(raw, "application/x-protobuf", None, Sender("http")))
    await asyncio.to_thread(submitted.wait, 10)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    future.set_result(Committed({"spans": spans_in(raw)}, {}, 1))
    receiver.close()
    assert counted(metrics, "tidegauge_ingest_spans_total", status="stored") == spans_in(raw)


async def test_a_commit_that_takes_too_long_is_not_acknowledged() -> None:
    metrics = Instruments(CollectorRegistry())
    settings = OtlpSettings(commit_timeout_seconds=0.05)
    receiver = OtlpReceiver(settings, lambda batch: Future(), FixedClock(), metrics, KEY)
    outcome = await receiver.receive(production_bodies()[20], "application/x-protobuf", None, Sender("http"))
    receiver.close()
    assert (outcome.outcome, outcome.retry_after) == ("unavailable", 2.0)


async def test_bodies_of_all_requests_together_are_bounded() -> None:
    metrics = Instruments(CollectorRegistry())
    settings = OtlpSettings(max_inflight_bytes=20_000, commit_timeout_seconds=0.5)
    receiver = OtlpReceiver(settings, lambda batch: Future(), FixedClock(), metrics, KEY)
    raw = next(raw for raw in production_bodies() if len(raw) > 10_000)
    outcomes = await asyncio.gather(
        *(receiver.receive(raw, "application/x-protobuf", None, Sender("http")) for _ in range(5))
    )
    receiver.close()
    receiver.close()
    assert {outcome.outcome for outcome in outcomes} == {"unavailable", "overloaded"}
    closed = await receiver.receive(raw, "application/x-protobuf", None, Sender("http"))
    assert (closed.outcome, closed.message) == (
        "unavailable",
        "cannot store now: the service is shutting down; try again",
    )


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_real_http_exporter_delivers(store: Store, compression: str) -> None:
    receiver = OtlpReceiver(OtlpSettings(), store.writer.submit, SystemClock(), store.metrics, KEY)
    with serving(receiver) as url:
        exporter = OTLPSpanExporter(endpoint=url + "/v1/traces", compression=Compression(compression))
        provider = TracerProvider(resource=Resource({"service.name": "shop"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        with (
            tracer.start_as_current_span("root", attributes={"tenant.id": "acme"}),
            tracer.start_as_current_span(
                "chat m", attributes={"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3}
            ),
        ):
            pass
        provider.shutdown()
    found = store.sql("SELECT name, kind, service, tenant, input_tokens FROM spans ORDER BY name")
    assert found == [("chat m", "llm", "shop", None, 3), ("root", "other", "shop", "acme", None)]
