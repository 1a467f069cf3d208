"""A bounded run of each fuzzer, coverage-guided, and structured inputs that bytes alone seldom reach."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.otlp.outcome import Outcome
from tests.fuzz.targets import NOW, TARGETS, Otlp, seeds

RUNS = 1500
ROOT = Path(__file__).parents[2]
LOOSE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_bounded_run_finds_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", str(RUNS), "--seed", "7", "--seconds", "60"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Done" in done.stderr
    assert list(tmp_path.glob("crash-*")) == []


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_seeds_are_understood(name: str) -> None:
    target = TARGETS[name]()
    understood = [target(seed) in (True, Outcome.ACCEPTED, Outcome.PARTIAL) for seed in seeds(name)]
    assert understood
    assert sum(understood) >= len(understood) / 2


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", "{", '{"a":', "[]", '["stop"]', "null", "NaN", "1e999", "-1", "9" * 400, "[[" * 200, "\ud800", "\0"]
)
KEYS = st.sampled_from(
    "gen_ai.input.messages gen_ai.output.messages gen_ai.prompt.0.content gen_ai.prompt.99999999.role input.value "
    "llm.input_messages.0.message.content llm.token_count.prompt gen_ai.usage.input_tokens langfuse.observation.output "
    "mlflow.spanOutputs ai.prompt.messages retrieval.documents.0.document.score tenant.id user.id session.id "
    "gen_ai.response.finish_reasons gen_ai.operation.name openinference.span.kind $bytes".split()
) | st.text(max_size=20)


def _pair(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"key": KEYS, "value": values})


VALUES = st.recursive(
    st.fixed_dictionaries({"stringValue": TEXTS})
    | st.fixed_dictionaries({"intValue": st.integers(-(2**63), 2**63 - 1).map(str) | st.integers(-5, 2**53)})
    | st.fixed_dictionaries({"doubleValue": st.floats() | st.sampled_from(["NaN", "Infinity", "-Infinity"])})
    | st.fixed_dictionaries({"boolValue": st.booleans()})
    | st.just({}),
    lambda inner: (
        st.fixed_dictionaries({"arrayValue": st.fixed_dictionaries({"values": st.lists(inner, max_size=4)})})
        | st.fixed_dictionaries({"kvlistValue": st.fixed_dictionaries({"values": st.lists(_pair(inner), max_size=4)})})
    ),
    max_leaves=12,
)


TIMES = st.integers(0, 2**64 - 1) | st.integers(int(NOW * 1e9) - 10**10, int(NOW * 1e9))
SPANS = st.fixed_dictionaries(
    {"traceId": st.just("ab" * 16) | TEXTS, "spanId": st.just("cd" * 8) | TEXTS},
    optional={
        "parentSpanId": TEXTS,
        "name": TEXTS,
        "kind": st.integers(0, 7) | st.sampled_from(["SPAN_KIND_CLIENT", "?"]),
        "startTimeUnixNano": TIMES.map(str),
        "endTimeUnixNano": TIMES,
        "attributes": st.lists(_pair(VALUES), max_size=8),
        "events": st.lists(
            st.fixed_dictionaries({"name": KEYS, "attributes": st.lists(_pair(VALUES), max_size=3)}), max_size=3
        ),
        "status": st.fixed_dictionaries({"code": st.integers(0, 3), "message": TEXTS}),
        "unknown": st.just(1),
    },
)


@LOOSE
@given(st.lists(SPANS, max_size=5))
def test_any_spans_as_json_get_an_answer_of_ours(spans: list[dict[str, Any]]) -> None:
    document = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    JSON_RECEIVER(b"\0" + json.dumps(document).encode("utf-8", "surrogatepass"))


@LOOSE
@given(st.data())
def test_any_message_with_a_byte_changed_gets_an_answer_of_ours(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(PROTOBUF_SEEDS))
    body = bytearray(seed[:20_000])
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(1, len(body) - 1))] = data.draw(st.integers(0, 255))
    PROTOBUF_RECEIVER(bytes(body))


def test_spans_within_spans_within_spans_are_bounded() -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"a" * 16, span_id=b"b" * 8)
    span.start_time_unix_nano = span.end_time_unix_nano = int(NOW * 1e9)
    value = span.attributes.add(key="gen_ai.input.messages").value
    for _ in range(30):
        value = value.array_value.values.add()
    value.string_value = "[" * 100_000
    assert PROTOBUF_RECEIVER(b"\0" + request.SerializeToString()) is Outcome.ACCEPTED


JSON_RECEIVER = Otlp("application/json")
PROTOBUF_RECEIVER = Otlp("application/x-protobuf")
PROTOBUF_SEEDS = list(seeds("otlp_protobuf"))
