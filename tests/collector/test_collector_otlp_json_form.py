"""OTLP/JSON: what the fast reader reads is what protobuf's own reads."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_support import body

from collector.otlp.json_form import UnusualError, message_of
from collector.otlp.parse import JSON, MalformedBodyError, from_any_json, parse

ODD = st.sampled_from(
    [None, True, 0, 1, -1, 1.0, 1.5, 2**63, 2**64, 1e300, "", "7", "-7", " 7", "x", "NaN", "ab", "SPAN_KIND_CLIENT"]
)
SCALARS = ODD | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
NAMES = st.sampled_from(
    """stringValue string_value intValue boolValue doubleValue arrayValue kvlistValue bytesValue values key value
    unknown attributes name kind flags traceId trace_id spanId startTimeUnixNano status code message events
    timeUnixNano links severityNumber body gauge sum dataPoints asInt asDouble exemplars isMonotonic min
    droppedAttributesCount""".split()
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
VALUES = st.fixed_dictionaries({}, optional={"stringValue": st.text(), "intValue": SCALARS, "arrayValue": ANY})
PAIRS = st.lists(st.fixed_dictionaries({"key": st.text() | ODD, "value": VALUES | ANY}), max_size=3)
ITEMS = st.dictionaries(NAMES, ANY, max_size=4) | st.fixed_dictionaries({"attributes": PAIRS, "traceId": SCALARS})
REQUESTS = [
    (ExportTraceServiceRequest, "resourceSpans", "scopeSpans", "spans"),
    (ExportLogsServiceRequest, "resourceLogs", "scopeLogs", "logRecords"),
    (ExportMetricsServiceRequest, "resourceMetrics", "scopeMetrics", "metrics"),
]


def outcome(read: Any, document: Any, message: Any) -> Any:
    try:
        return read(json.dumps(document).encode(), message).SerializeToString(deterministic=True)
    except MalformedBodyError as error:
        return str(error)


def quick(raw: bytes, message: Any) -> Any:
    return parse(raw, JSON, message)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(REQUESTS), st.lists(ITEMS, max_size=3), ANY)
def test_any_json_reads_as_protobuf_reads_it(request: Any, items: list[Any], resource: Any) -> None:
    message, outer, inner, last = request
    document = {outer: [{"resource": resource, inner: [{last: items, "scope": {"name": "s"}}]}]}
    assert outcome(quick, document, message) == outcome(from_any_json, document, message)


def value(**fields: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {"attributes": [{"key": "k", "value": fields}]}}]}


@pytest.mark.parametrize(
    "document",
    [
        value(stringValue="a", intValue=1),
        value(intValue=1.0),
        value(intValue=2**64),
        value(doubleValue="NaN"),
        value(bytesValue="AAE="),
        {"resourceSpans": [], "resource_spans": []},
        {"resourceSpans": [None]},
        {"resourceSpans": {}},
    ],
    ids=["two-values", "whole-double", "too-large", "nan", "bytes", "both-names", "null-item", "no-list"],
)
def test_what_only_protobuf_can_judge_is_left_to_it(document: Any) -> None:
    with pytest.raises((UnusualError, ValueError)):
        message_of(document, ExportTraceServiceRequest)


def test_a_recorded_request_in_json_needs_no_second_reader() -> None:
    document = json.loads(body("clients/vercel-ai.json.gz"))
    assert message_of(document, ExportTraceServiceRequest) == from_any_json(
        json.dumps(document).encode(), ExportTraceServiceRequest
    )


def test_absurd_nesting_is_malformed() -> None:
    nested: dict[str, Any] = {"stringValue": "x"}
    for _ in range(300):
        nested = {"arrayValue": {"values": [nested]}}
    with pytest.raises(MalformedBodyError, match="ExportTraceServiceRequest"):
        parse(json.dumps(value(**nested)).encode(), JSON, ExportTraceServiceRequest)
