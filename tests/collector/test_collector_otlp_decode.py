"""Decoding rules, one by one."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_support import KEY, RECORDED_NOW, comparable, pairs, production_bodies, rebuilt, spans_of

from catalog.dialect import (
    COLUMN_CONVERSIONS,
    KINDS,
    SETTLING,
    VANTAGES,
    Place,
    of_attribute,
    shapes,
    sources,
    spellings,
)
from collector.otlp.decode import Decoder
from collector.otlp.documents import documents_json
from collector.otlp.messages import MESSAGE_KEYS, are_plain, messages_json, nested
from collector.otlp.parse import JSON, PROTOBUF, BodyTooLargeError, MalformedBodyError, decompress, parse
from collector.otlp.settings import OtlpSettings
from collector.otlp.span_rows import SCHEMA, WRITERS
from store.tables import SPANS

START = int((RECORDED_NOW - 100) * 1e9) + 123
FIELDS = {"trace_id": b"t" * 16, "span_id": b"s" * 8, "name": "x", "kind": 3}


def request(
    span: dict[str, Any] | None = None, resource: dict[str, Any] | None = None, scope: str = "", **fields: Any
) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    holder = made.resource_spans.add()
    holder.resource.attributes.extend(pairs(resource or {}))
    scoped = holder.scope_spans.add()
    scoped.scope.name = scope
    times = {"start_time_unix_nano": START, "end_time_unix_nano": START + 2_000_000_000}
    scoped.spans.add(**{**FIELDS, **times, **fields}).attributes.extend(pairs(span or {}))
    return made


def row(made: ExportTraceServiceRequest, **options: Any) -> dict[str, Any]:
    result = Decoder(OtlpSettings(**options), KEY).decode(made, RECORDED_NOW)
    assert result.rejected == {}
    found: dict[str, Any] = result.table.to_pylist()[0]
    return found


def of(column: str, span: dict[str, Any], resource: dict[str, Any] | None = None, **options: Any) -> Any:
    return row(request(span, resource), **options)[column]


def test_every_mapped_column_is_one_of_the_table_and_not_the_writers() -> None:
    columns = {source.column for source in sources()}
    assert columns <= set(SCHEMA.names) | SETTLING
    assert set(COLUMN_CONVERSIONS) <= set(SCHEMA.names) | SETTLING
    assert set(SPANS.names) - set(SCHEMA.names) >= WRITERS


def test_kinds_and_vantages_of_the_tables_are_the_contracts() -> None:
    for column, allowed in (("kind", KINDS), ("vantage", VANTAGES)):
        given_values = {
            value
            for source in sources()
            if source.column == column
            for value in (*source.values.values(), *([source.value] if source.value else ()))
        }
        assert given_values
        assert given_values <= allowed


def test_columns_that_are_not_text_have_a_conversion_of_their_own() -> None:
    numeric = {name for name in SCHEMA.names if str(SCHEMA.field(name).type) in ("int64", "double")}
    assert numeric - {"duration_s"} <= set(COLUMN_CONVERSIONS)


@pytest.mark.parametrize(
    ("column", "span", "expected"),
    [
        ("request_model", {"gen_ai.request.model": "m"}, "m"),
        ("request_model", {"llm.invocation_parameters": '{"model": "m"}'}, "m"),
        ("request_model", {"mlflow.spanType": '"CHAT_MODEL"', "model": '"m"'}, "m"),
        ("request_model", {"model": "not of a known client"}, None),
        ("request_model", {"gen_ai.request.model": ""}, None),
        ("provider", {"gen_ai.provider.name": "new", "gen_ai.system": "old"}, "new"),
        ("provider", {"gen_ai.system": "aws.bedrock"}, "aws.bedrock"),
        ("provider", {"gen_ai.system": "openai.chat", "ai.operationId": "ai.generateText"}, "openai"),
        ("input_tokens", {"gen_ai.usage.input_tokens": 7, "gen_ai.usage.prompt_tokens": 9}, 7),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": 9}, 9),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": "9"}, 9),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": 9.0}, 9),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": 9.5}, None),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": -1}, None),
        ("input_tokens", {"gen_ai.usage.prompt_tokens": True}, None),
        ("input_tokens", {"gen_ai.usage.input_tokens": "many", "gen_ai.usage.prompt_tokens": 9}, 9),
        ("input_tokens", {"gen_ai.usage.input_tokens": 0}, 0),
        ("input_tokens", {"langfuse.observation.usage_details": '{"input": 4}'}, 4),
        ("input_tokens", {"langfuse.observation.usage_details": '{"prompt_tokens": 4, "input": 9}'}, 4),
        ("cost_usd", {"langfuse.observation.cost_details": '{"input": 0.5, "output": 0.25}'}, 0.75),
        ("cost_usd", {"gen_ai.usage.cost": {"$double": "NaN"}}, None),
        ("finish_reason", {"gen_ai.response.finish_reasons": ["tool_call"]}, "tool_calls"),
        ("finish_reason", {"gen_ai.response.finish_reasons": '["tool-calls"]'}, "tool_calls"),
        ("finish_reason", {"llm.finish_reason": "completed"}, "stop"),
        ("finish_reason", {"llm.finish_reason": "MAX_TOKENS"}, "length"),
        ("finish_reason", {"llm.finish_reason": "somethingNew"}, "somethingNew"),
        ("finish_reason", {"gen_ai.response.finish_reasons": []}, None),
        ("finish_reason", {"langfuse.observation.metadata.finish_reason": '"stop"'}, "stop"),
        ("error_type", {"error.type": "<class 'openai.RateLimitError'>"}, "RateLimitError"),
        ("error_type", {"error.type": "openai.RateLimitError"}, "RateLimitError"),
        ("error_type", {"error.type": "429"}, "429"),
        ("prompt_version", {"langfuse.observation.prompt.version": 3}, "3"),
        ("session_id", {"session.id": "mine", "gen_ai.conversation.id": "generated"}, "mine"),
        ("time_to_first_token_s", {"ai.response.msToFirstChunk": 75.5}, 0.0755),
        ("time_to_first_token_s", {"gen_ai.server.time_to_first_token": 1.5}, None),
        (
            "time_to_first_token_s",
            {"gen_ai.server.time_to_first_token": 1.5, "gen_ai.request.stream": True},
            1.5,
        ),
        ("response_format", {"gen_ai.output.type": "json"}, "json_object"),
        ("response_format", {"gen_ai.output.type": "text"}, "text"),
        ("response_format", {"gen_ai.output.type": "image"}, None),
        (
            "response_format",
            {"gen_ai.output.type": "json", "gen_ai.request.structured_output_schema": '{"type":"object"}'},
            "json_schema",
        ),
        (
            "response_schema",
            {"llm.invocation_parameters": '{"response_format":{"json_schema":{"schema":{"type":"object"}}}}'},
            '{"type":"object"}',
        ),
        ("kind", {"openinference.span.kind": "RETRIEVER"}, "retrieval"),
        ("kind", {"openinference.span.kind": "retriever"}, "retrieval"),
        ("kind", {"gen_ai.operation.name": "RETRIEVER"}, "retrieval"),
        ("kind", {"langfuse.observation.type": "generation"}, "llm"),
        ("kind", {"mlflow.spanType": '"CHAT_MODEL"'}, "llm"),
        ("kind", {"gen_ai.operation.name": "chat", "logfire.span_type": "pending_span"}, "other"),
        ("kind", {"ai.operationId": "ai.generateText", "gen_ai.request.model": "m"}, "agent"),
        ("kind", {"llm.request.type": "embedding", "gen_ai.request.model": "m"}, "embedding"),
        ("kind", {"gen_ai.request.model": "m"}, "llm"),
        ("kind", {"http.method": "POST"}, "other"),
        ("vantage", {"gen_ai.operation.name": "chat"}, "client"),
        ("vantage", {"gen_ai.latency.e2e": 1.0}, "engine"),
        ("vantage", {"http.method": "POST"}, None),
    ],
)
def test_a_column_is_read_from(column: str, span: dict[str, Any], expected: Any) -> None:
    assert of(column, span) == expected


def test_a_gateway_is_known_by_its_scope_or_its_server_span() -> None:
    chat = {"gen_ai.operation.name": "chat"}
    assert row(request(chat, scope="litellm"))["vantage"] == "gateway"
    assert row(request(chat, kind=2))["vantage"] == "gateway"


def test_the_spans_tenant_goes_before_the_resources_and_keys_in_their_order() -> None:
    keys = {"tenant_keys": ("tenant.id", "org")}
    assert of("tenant", {"org": "span"}, {"tenant.id": "resource"}, **keys) == "span"
    assert of("tenant", {"org": "second", "tenant.id": "first"}, None, **keys) == "first"
    assert of("tenant", {}, {"org": "resource"}, **keys) == "resource"
    assert of("tenant", {"org": "unasked"}) is None


def test_the_instance_is_the_first_of_id_pod_and_host() -> None:
    assert of("instance", {}, {"host.name": "h", "k8s.pod.name": "p"}) == "p"
    assert of("instance", {}, {"host.name": "h", "service.instance.id": "i"}) == "i"


def test_an_explicit_deployment_goes_before_the_services_version() -> None:
    assert of("deployment", {}, {"service.version": "1"}) == "1"
    assert of("deployment", {}, {"service.version": "1", "deployment.name": "blue"}) == "blue"
    assert of("environment", {}, {"deployment.environment": "old"}) == "old"


def test_an_iso_time_in_quotes_becomes_the_distance_from_the_start() -> None:
    moment = '"2026-11-23T19:30:12.500000Z"'
    start = 1_795_462_212_000_000_000
    made = request(
        {"langfuse.observation.completion_start_time": moment},
        start_time_unix_nano=start,
        end_time_unix_nano=start + 1_000_000_000,
    )
    assert row(made)["time_to_first_token_s"] == pytest.approx(0.5)


def test_an_exception_names_the_error_only_on_a_span_that_failed() -> None:
    made = request({"gen_ai.operation.name": "chat"})
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.events.add(name="exception", time_unix_nano=START).attributes.extend(pairs({"exception.type": "a.B"}))
    assert row(made)["error_type"] is None
    span.status.code = 2
    assert (row(made)["error_type"], row(made)["status"]) == ("B", "error")


BROKEN_STREAM = {"gen_ai.operation.name": "chat", "gen_ai.is_streaming": True, "gen_ai.output.messages": "[]"}


def test_a_stream_that_broke_off_before_its_first_chunk_has_failed_whatever_its_span_says() -> None:
    # As opentelemetry-instrumentation-openai ends it: status OK, no response, an empty list of messages.
    found = row(request(BROKEN_STREAM))
    assert (found["status"], found["error_type"]) == ("error", "no_response")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"gen_ai.response.finish_reasons": ["stop"]}, id="an answer of no words"),
        pytest.param({"gen_ai.response.id": "x"}, id="a response"),
        pytest.param({"gen_ai.usage.output_tokens": 0}, id="its tokens"),
    ],
)
def test_an_empty_answer_that_arrived_is_no_failure(more: dict[str, Any]) -> None:
    assert row(request(BROKEN_STREAM | more))["status"] == "ok"


def test_a_client_that_captures_no_content_does_not_fail() -> None:
    assert row(request({"gen_ai.operation.name": "chat"}))["status"] == "ok"


def test_feature_flags_are_read_from_their_events() -> None:
    made = request()
    event = made.resource_spans[0].scope_spans[0].spans[0].events.add(name="feature_flag.evaluation")
    event.attributes.extend(pairs({"feature_flag.key": "new-prompt", "feature_flag.result.variant": "on"}))
    assert json.loads(row(made)["feature_flags"]) == [{"key": "new-prompt", "variant": "on"}]


def test_text_that_has_the_form_already_is_kept_to_the_byte_and_left_out_of_the_attributes() -> None:
    text = '[{"role": "user",  "parts": [{"content": "hi", "type": "text"}]}]'
    found = row(request({"gen_ai.operation.name": "chat", "gen_ai.input.messages": text}))
    kept = json.loads(found["attributes"])
    assert (found["input_messages"], kept["moved"]) == (text, {"gen_ai.input.messages": "input_messages"})
    assert kept["span"] == {"gen_ai.operation.name": "chat"}


PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "Text", "tool_call", 1]), "content": st.text(max_size=3) | st.none()},
    optional={"name": st.text(max_size=2)},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "", None]), "parts": st.lists(PARTS, max_size=2)},
    optional={"finish_reason": st.sampled_from(["stop", None, 1.5]), "name": st.text(max_size=2), "id": st.text()},
)


@settings(max_examples=200, deadline=None)
@given(st.lists(MESSAGE | st.text(), max_size=2).map(json.dumps) | st.text(max_size=5))
def test_messages_of_nothing_but_texts_are_kept_as_they_are(text: str) -> None:
    if not are_plain(text):
        return
    messages = json.loads(text)
    assert messages
    assert all(message["role"] and message.keys() <= MESSAGE_KEYS for message in messages)
    parts = [part for message in messages for part in message["parts"]]
    assert all(part.keys() == {"type", "content"} and isinstance(part["content"], str) for part in parts)
    assert messages_json(text, "user", len(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        '[{"role":"user","parts":[{"type":"text","content":"\\ud83d\\ude00 \\n"}]}]',
        '[{"role":"assistant","parts":[{"content":"é","type":"text"}],"finish_reason":"stop"},{"role":"x","parts":[]}]',
    ],
    ids=["escapes", "reason"],
)
def test_the_usual_messages_are_told_at_a_glance(text: str) -> None:
    assert are_plain(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]),
        ("[not json", [{"role": "user", "parts": [{"type": "text", "content": "[not json"}]}]),
        ("", None),
        ("[]", None),
        (
            '[{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]}]',
            [{"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": {}}]}],
        ),
        (
            '[{"role":"tool","tool_call_id":"1","content":"ok"}]',
            [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "ok"}]}],
        ),
        (
            '[{"role":"user","parts":[{"type":"tool_call_response","id":"1","name":"f","result":{"a":1}}]}]',
            [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "name": "f", "response": {"a": 1}}]}],
        ),
        (
            '{"messages":[{"role":"user","content":[{"type":"text","text":"a"},'
            '{"type":"image_url","image_url":{"url":"data:x"}}]}],"tools":[]}',
            [{"role": "user", "parts": [{"type": "text", "content": "a"}, {"type": "uri", "uri": "data:x"}]}],
        ),
        (
            '{"system":"be brief","prompt":"hi"}',
            [
                {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
                {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
            ],
        ),
    ],
    ids=["text", "broken", "empty", "none", "tool-call", "tool-reply", "result", "parts", "system"],
)
def test_messages_have_one_form(value: str, expected: Any) -> None:
    made = messages_json(value, "user", 10_000)
    assert (made and json.loads(made)) == expected


def test_an_answer_leaves_out_the_instructions_that_it_repeats() -> None:
    made = messages_json(
        '{"instructions": "be brief", "output": [{"role": "assistant", "content": "hi"}]}', "assistant", 999
    )
    assert json.loads(made or "") == [{"role": "assistant", "parts": [{"type": "text", "content": "hi"}]}]


def test_messages_past_the_limit_stay_json_and_say_that_they_were_cut() -> None:
    made = messages_json(
        json.dumps([{"role": "user", "content": "x" * 50_000}, {"role": "a", "content": "y"}]), "u", 2000
    )
    assert made is not None
    first, second = json.loads(made)
    assert len(made) <= 2000
    assert first["parts"][0]["truncated"] is True
    assert second["parts"] == [{"type": "text", "content": "y"}]


def test_flattened_lists_of_any_shape_become_lists() -> None:
    attributes = {"p.0.a": 1, "p.0.b.1.c": 2, "p.0.b.0.c": 3, "p.10.a": 4, "p.2.a": 5, "p.2.a.x": 6}
    assert nested("p.", attributes) == [{"a": 1, "b": [{"c": 3}, {"c": 2}]}, {"a": {"": 5, "x": 6}}, {"a": 4}]
    assert nested("p.", {"p.0." + "a." * 10_000: 1}) != []


def test_documents_of_any_client_have_one_form() -> None:
    text = '[{"page_content": "t", "metadata": "{\\"page\\": 3}", "id": "d"}, "bare"]'
    assert json.loads(documents_json(text) or "") == [
        {"id": "d", "content": "t", "metadata": {"page": 3}},
        {"content": "bare"},
    ]
    assert documents_json("no list") is None


def test_values_that_json_cannot_say_come_back() -> None:
    made = request(
        {
            "bytes": {"$bytes": base64.b64encode(b"\x00\xff").decode()},
            "nan": {"$double": "NaN"},
            "whole": 1.0,
            "int": 2**63 - 1,
            "nothing": None,
            "nested": [{"a": [1, "x", None]}, []],
            "dollar": {"$map": [["$bytes", "not really"]]},
            "nul": "a\x00b",
        },
        trace_state="a=b",
        dropped_attributes_count=3,
    )
    span = made.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.extend(pairs({"int": 1}))
    span.links.add(trace_id=b"l" * 16, span_id=b"m" * 8, trace_state="c=d")
    span.events.add(name="e", time_unix_nano=START - 5, dropped_attributes_count=1)
    resource, scope, _ = next(spans_of(made))
    assert comparable(*rebuilt(row(made))) == comparable(resource, scope, span)


def test_a_user_id_that_comes_twice_is_hashed_twice() -> None:
    made = request({"user.id": "anna"})
    made.resource_spans[0].scope_spans[0].spans[0].attributes.extend(pairs({"user.id": "bert"}))
    found = row(made)
    assert "anna" not in found["attributes"]
    assert "bert" not in found["attributes"]


def test_another_key_gives_another_hash() -> None:
    made = request({"user.id": "anna"})
    hashes = {
        Decoder(OtlpSettings(), key).decode(made, RECORDED_NOW).table["user_id"][0].as_py() for key in (KEY, b"other")
    }
    assert len(hashes) == 2


def test_half_a_surrogate_pair_does_not_take_the_batch_with_it() -> None:
    found = row(request({"llm.invocation_parameters": '{"model": "\\ud800m"}'}))
    assert found["request_model"] == "?m"


@pytest.mark.parametrize(
    "messages",
    [
        '[{"role": "user", "parts": [{"type": [], "content": {}}]}]',
        '[{"role": {}, "parts": {"a": 1}}]',
        '[{"role": "user", "content": [{"type": {"a": 1}}]}]',
        '[[[]], {"tool_calls": [1, {"function": 3}]}, null]',
        '{"choices": [{"message": {"content": [[1]]}}]}',
        "[" * 900 + "]" * 900,
        '[{"role": "user", "content": NaN}]',
        '{"messages": 1e999}',
        "1" * 5000,
    ],
    ids=["type", "role", "part-type", "calls", "choices", "deep", "nan", "infinity", "digits"],
)
def test_odd_messages_never_cost_the_span(messages: str) -> None:
    keys = ("gen_ai.input.messages", "gen_ai.output.messages", "ai.prompt", "mlflow.spanOutputs", "output.value")
    for key in keys:
        kept = json.loads(row(request({"gen_ai.operation.name": "chat", key: messages}))["attributes"])
        assert kept["span"].get(key) == messages or key in kept["moved"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b"t" * 15}, "trace_id"),
        ({"trace_id": bytes(16)}, "trace_id"),
        ({"span_id": b""}, "span_id"),
        ({"span_id": bytes(8)}, "span_id"),
        ({"parent_span_id": b"1"}, "parent_span_id"),
        ({"end_time_unix_nano": START - 1}, "ends_before_start"),
        ({"end_time_unix_nano": 0}, "ends_before_start"),
        ({"start_time_unix_nano": 0}, "too_old"),
        ({"start_time_unix_nano": 2**64 - 2, "end_time_unix_nano": 2**64 - 1}, "in_the_future"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_span_without_identity_or_place_in_time_is_rejected(fields: dict[str, Any], reason: str) -> None:
    result = Decoder(OtlpSettings(), KEY).decode(request(**fields), RECORDED_NOW)
    assert (result.rejected, result.table.num_rows) == ({reason: 1}, 0)


def test_a_parent_of_zeros_is_no_parent() -> None:
    assert row(request(parent_span_id=bytes(8)))["parent_span_id"] is None


def test_the_tables_read_the_keys_they_name() -> None:
    for source in sources():
        if source.place is Place.ATTRIBUTE:
            assert source in of_attribute(source.key)
    assert shapes().parts["tool_use"].type == "tool_call"
    assert spellings()["finish_reason"]["tool-calls"] == "tool_calls"


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted({source.key for source in sources() if source.place is Place.ATTRIBUTE})) | st.text()
FLAT = st.builds(
    "{}{}.{}".format, st.sampled_from(["gen_ai.prompt.", "llm.input_messages."]), st.integers(0), st.text()
)


@FUZZ
@given(st.dictionaries(KEYS | FLAT, TREES | TREES.map(json.dumps), max_size=6))
def test_whatever_attributes_say_a_span_is_stored_and_can_be_rebuilt(attributes: dict[str, Any]) -> None:
    try:
        made = request(attributes)
    except UnicodeEncodeError:
        return
    resource, scope, span = next(spans_of(made))
    found = row(made)
    json.loads(found["attributes"])
    users = {source.key for source in sources() if source.column == "user_id"}
    if not users & attributes.keys() and "$" not in str(attributes) and not found["status_message"]:
        assert comparable(*rebuilt(found)) == comparable(resource, scope, span)


@FUZZ
@given(st.binary(max_size=400), st.sampled_from([PROTOBUF, JSON]))
def test_random_bytes_are_malformed_or_a_request(raw: bytes, media: str) -> None:
    try:
        made = parse(raw, media, ExportTraceServiceRequest)
    except MalformedBodyError:
        return
    Decoder(OtlpSettings(), KEY).decode(made, RECORDED_NOW)


@FUZZ
@given(st.data())
def test_a_damaged_recording_is_malformed_or_decoded(data: st.DataObject) -> None:
    raw = bytearray(production_bodies()[20])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = parse(bytes(raw), PROTOBUF, ExportTraceServiceRequest)
    except MalformedBodyError:
        return
    result = Decoder(OtlpSettings(), KEY).decode(made, RECORDED_NOW)
    sent = sum(1 for _ in spans_of(made))
    assert result.table.num_rows + result.rejections() == sent


@FUZZ
@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_random_bytes_never_inflate_past_the_limit(raw: bytes, encoding: str) -> None:
    with suppress(MalformedBodyError, BodyTooLargeError):
        assert len(decompress(raw, encoding, 1000)) <= 1000


def test_all_zero_span_message_is_rejected_not_stored() -> None:
    made = ExportTraceServiceRequest()
    made.resource_spans.add().scope_spans.add().spans.append(Span())
    result = Decoder(OtlpSettings(), KEY).decode(made, RECORDED_NOW)
    assert result.rejected == {"trace_id": 1}
