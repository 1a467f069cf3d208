"""Tokens of every dialect and provider, counted alike: cached within the input, thoughts within the output."""

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.otlp.decode import Decoder
from collector.otlp.settings import OtlpSettings
from collector.otlp.settle import USAGE
from tests.collector.otlp_support import DATA, KEY, RECORDED_NOW, pairs

CASES = json.loads((DATA / "golden" / "usage.json").read_text())


def row(attributes: dict[str, Any]) -> dict[str, Any]:
    """The row of a span with these attributes."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="call")
    span.start_time_unix_nano, span.end_time_unix_nano = int((RECORDED_NOW - 9) * 1e9), int((RECORDED_NOW - 8) * 1e9)
    span.attributes.extend(pairs(attributes))
    found: dict[str, Any] = Decoder(OtlpSettings(), KEY).decode(request, RECORDED_NOW).table.to_pylist()[0]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"].split(":")[0])
def test_tokens_are_what_the_provider_bills(case: dict[str, Any]) -> None:
    found = row(case["attributes"])
    assert {name: found[name] for name in USAGE if found[name] is not None} == case["columns"]
