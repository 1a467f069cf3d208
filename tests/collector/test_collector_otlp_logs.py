"""OTLP logs from the bytes to the store: contents of spans, evaluations, and the records themselves."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from collector.otlp.handler import Submit
from collector.otlp.logs import STATUSES
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import JSON, PROTOBUF
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.redaction.columns import Privacy
from collector.redaction.settings import PrivacySettings
from store.settings import StoreSettings
from tests.collector.otlp_support import KEY, RECORDED_NOW, body, counted, pairs
from tests.store_kit import Store, moment, span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
AT = int(RECORDED_NOW - 60) * 10**9
DETAILS = "gen_ai.client.inference.operation.details"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, StoreSettings())
    made.clock.time = RECORDED_NOW
    yield made
    made.close()


def receiver(store: Store, submit: Submit | None = None, **settings: Any) -> OtlpReceiver:
    def subjects(traces: Any, responses: Any) -> Any:
        return store.reads.subjects(traces, responses, since=0.0)

    chosen = OtlpSettings(**settings)
    return OtlpReceiver(chosen, submit or store.writer.submit, store.clock, store.metrics, KEY, subjects=subjects)


def export(store: Store, *records: LogRecord, resource: dict[str, Any] | None = None, **settings: Any) -> ExportOutcome:
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.extend(pairs(resource or {"service.name": "bot"}))
    logs.scope_logs.add().log_records.extend(records)
    return send(store, request.SerializeToString(), **settings)


def send(
    store: Store,
    raw: bytes,
    signal: Signal = Signal.LOGS,
    media: str = PROTOBUF,
    encoding: str | None = None,
    **kw: Any,
) -> ExportOutcome:
    taking = receiver(store, **kw)
    try:
        return asyncio.run(taking.receive(raw, media, encoding, Sender("http"), signal))
    finally:
        taking.close()


def record(name: str = "", body: Any = None, trace: str = TRACE, span_id: str = SPAN, **more: Any) -> LogRecord:
    attributes = more.pop("attributes", {})
    made = LogRecord(
        event_name=name,
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(span_id),
        time_unix_nano=more.pop("time", AT),
        attributes=pairs(attributes),
        **more,
    )
    if body is not None:
        made.body.CopyFrom(pairs({"body": body})[0].value)
    return made


def a_span(**columns: Any) -> dict[str, Any]:
    times = {"start_time": moment(RECORDED_NOW - 70), "end_time": moment(RECORDED_NOW - 60)}
    return {**span(SPAN, trace=TRACE), **times, **columns}


def one(store: Store, columns: str, table: str = "spans") -> tuple[Any, ...]:
    rows = store.sql(f"SELECT {columns} FROM {table}")
    assert len(rows) == 1
    return rows[0]


def statuses(store: Store) -> dict[str, float]:
    family = "tidegauge_ingest_log_records_total"
    found = {status: counted(store.metrics, family, status=status) for status in STATUSES}
    return {status: count for status, count in found.items() if count}


# --- recorded ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logs_come", ["first", "last"])
def test_recorded_contents_are_in_their_spans_alone(store: Store, logs_come: str) -> None:
    raw = {Signal.TRACES: body("clients/oai-v2-latest.pb.gz"), Signal.LOGS: body("clients/oai-v2-latest-logs.pb.gz")}
    for signal in sorted(raw, reverse=logs_come == "last"):
        assert send(store, raw[signal], signal).outcome is Outcome.ACCEPTED
    rows = store.sql("SELECT input_messages, output_messages FROM spans WHERE operation = 'chat' ORDER BY start_time")
    assert (len(rows), sum(given is not None for given, _ in rows), sum(got is not None for _, got in rows)) == (
        12,
        12,
        11,  # one call failed
    )
    assert one(store, "count(*)", "span_contents") == (0,)
    records = store.sql("SELECT event_name, attributes FROM log_records")
    assert {name for name, _ in records} == {DETAILS}
    assert not [text for _, text in records if "Fake answer" in text or "Plan a day" in text]


def test_recorded_events_bring_contents_that_spans_do_not_have(store: Store) -> None:
    raw = body("clients/oai-v2-latest-logs.pb.gz")
    wanted = ExportLogsServiceRequest.FromString(raw).resource_logs[0].scope_logs[0].log_records
    bare = [
        a_span(trace_id=item.trace_id.hex(), span_id=item.span_id.hex(), start_time=moment(RECORDED_NOW - 7_700))
        for item in wanted
    ]
    store.put("spans", *bare)
    assert (
        send(
            store,
            gzip.compress(raw),
            encoding="gzip",
        ).stored
        == 12
    )
    rows = store.sql("SELECT input_messages, output_messages, finish_reason, input_tokens, provider FROM spans")
    said = [(item["role"], item["parts"]) for text, *_ in rows for item in json.loads(text)]
    assert ("user", [{"content": "Say hello.", "type": "text"}]) in said
    assert sorted(str(row[2]) for row in rows) == ["None"] + ["stop"] * 9 + ["tool_calls"] * 2
    assert {row[4] for row in rows} == {"openai"}


def test_recorded_events_sent_twice_are_stored_once(store: Store) -> None:
    raw = body("clients/oai-v2-latest-logs.pb.gz")
    send(store, raw)
    store.reopen()
    again = send(store, raw)
    assert (again.outcome, again.stored, again.duplicates) == (Outcome.ACCEPTED, 0, 12)
    assert one(store, "count(*)", "log_records") == one(store, "count(*)", "span_contents") == (12,)
    assert statuses(store) == {"stored": 12, "duplicate": 12}


# --- the older events -------------------------------------------------------------------------------------------------


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
LEGACY = [
    record("gen_ai.system.message", {"content": "You are terse."}, time=AT),
    record("gen_ai.user.message", {"content": "Weather in Paris?"}, time=AT + 1000),
    record("gen_ai.assistant.message", {"tool_calls": [CALL]}, time=AT + 2000),
    record("gen_ai.tool.message", {"content": "rain", "id": "call_1"}, time=AT + 3000),
    record(
        "gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rain."}}
    ),
]
LEGACY_IN = [
    {"role": "system", "parts": [{"type": "text", "content": "You are terse."}]},
    {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "rain"}]},
]
LEGACY_OUT = [{"role": "assistant", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "stop"}]


@pytest.mark.parametrize("cut", range(len(LEGACY) + 1))
def test_one_record_a_message_makes_the_conversation_however_exports_cut_it(store: Store, cut: int) -> None:
    if cut:
        export(store, *LEGACY[-cut:])
    store.put("spans", a_span())
    if cut < len(LEGACY):
        export(store, *LEGACY[: len(LEGACY) - cut])
    given, got, reason = one(store, "input_messages, output_messages, finish_reason")
    assert (json.loads(given), json.loads(got), reason) == (LEGACY_IN, LEGACY_OUT, "stop")
    assert set(store.sql("SELECT body FROM log_records")) == {(None,)}


def test_name_of_an_older_event_may_be_an_attribute(store: Store) -> None:
    store.put("spans", a_span())
    export(store, record("", {"content": "hi"}, attributes={"event.name": "gen_ai.user.message"}))
    assert json.loads(one(store, "input_messages")[0]) == [
        {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    ]


def test_events_without_captured_content_make_no_empty_messages(store: Store) -> None:
    store.put("spans", a_span())
    choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant"}}
    export(store, record("gen_ai.user.message"), record("gen_ai.choice", choice))
    assert one(store, "input_messages, output_messages, finish_reason") == (None, None, "length")


def test_unknown_keys_of_a_message_stay_with_its_record(store: Store) -> None:
    export(store, record("gen_ai.user.message", {"content": "hi", "mood": "good"}))
    text, attributes = one(store, "body, attributes", "log_records")
    assert json.loads(text) == {"mood": "good"}
    assert json.loads(attributes)["moved"] == {"body": "input_messages"}


# --- what else --------------------------------------------------------------------------------------------------------


def test_event_without_ids_finds_its_span_by_the_response(store: Store) -> None:
    store.put("spans", a_span(response_id="chatcmpl-7"))
    said = {"gen_ai.response.id": "chatcmpl-7", "gen_ai.input.messages": [{"role": "user", "content": "hi"}]}
    export(store, record(DETAILS, attributes=said, trace="", span_id=""))
    assert "hi" in one(store, "input_messages")[0]


def test_exception_names_the_error_of_a_failed_span(store: Store) -> None:
    store.put("spans", a_span(status="error"))
    export(store, record("exception", attributes={"exception.type": "openai.RateLimitError"}, severity_number=17))
    assert one(store, "error_type") == ("RateLimitError",)
    assert one(store, "severity, event_name", "log_records") == ("ERROR", "exception")


EVALUATED = {
    "gen_ai.evaluation.name": "Relevance",
    "gen_ai.evaluation.score.value": 0.75,
    "gen_ai.evaluation.score.label": "good",
    "gen_ai.evaluation.explanation": "to the point",
}


def test_evaluation_becomes_a_score_of_its_span_once(store: Store) -> None:
    store.put("spans", a_span(tenant="acme", request_model="m"))
    for _ in range(2):
        export(store, record("gen_ai.evaluation.result", attributes=EVALUATED))
    columns = "subject_id, evaluator, value, label, explanation, status, source, tenant, request_model"
    assert one(store, columns, "scores") == (
        f"{TRACE}:{SPAN}", "Relevance", 0.75, "good", "to the point", "scored", "api", "acme", "m",
    )  # fmt: skip


def test_evaluation_is_of_the_response_it_names(store: Store) -> None:
    store.put("spans", a_span(response_id="chatcmpl-7"))
    named = {**EVALUATED, "gen_ai.response.id": "chatcmpl-7"}
    export(store, record("gen_ai.evaluation.result", attributes=named, trace="1" * 32, span_id="2" * 16))
    assert one(store, "subject_id", "scores") == (f"{TRACE}:{SPAN}",)


def test_evaluation_of_nothing_known_is_kept_as_a_record_and_counted(store: Store) -> None:
    answer = export(store, record("gen_ai.evaluation.result", attributes=EVALUATED, trace="", span_id=""))
    assert (answer.stored, one(store, "count(*)", "scores")) == (1, (0,))
    assert counted(store.metrics, "tidegauge_content_events_total", outcome="unclaimed") == 1


SECRET = "the launch is on Friday"


@pytest.mark.parametrize("capture", ["full", "off"])
def test_contents_reach_the_disk_only_where_they_are_captured(store: Store, capture: str) -> None:
    policy = PrivacySettings.model_validate({"tenants": {"bank": {"capture": capture}}})
    submit = Privacy(policy, KEY, store.metrics).before(store.writer.submit)
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": [{"role": "user", "content": SECRET}],
        "gen_ai.tool.definitions": [{"name": SECRET}],
    }
    records = [
        record(DETAILS, attributes=said),
        record("gen_ai.choice", {"message": {"content": SECRET}}, span_id="1" * 16),
        record("gen_ai.unknown", {"content": SECRET}, attributes={"gen_ai.output.messages": [{"content": SECRET}]}),
    ]
    export(store, *records, resource={"tenant.id": "bank"}, submit=submit)
    kept = [
        str(row)
        for name in ("log_records", "span_contents")
        for row in store.sql(f"SELECT {name}::VARCHAR FROM {name}")
    ]
    assert len(kept) == 5
    assert any(SECRET in row for row in kept) == (capture == "full")


# --- which records are kept -------------------------------------------------------------------------------------------

KEPT = {"genai": ["gen_ai.new"], "traced": ["gen_ai.new", "traced"], "all": ["gen_ai.new", "plain", "traced"]}


@pytest.mark.parametrize("logs", KEPT)
def test_settings_say_which_records_are_kept_and_the_answer_why_not(store: Store, logs: str) -> None:
    sent = [record("plain", trace="", span_id=""), record("traced"), record("gen_ai.new", trace="", span_id="")]
    answer = export(store, *sent, logs=logs)
    assert [name for (name,) in store.sql("SELECT event_name FROM log_records ORDER BY 1")] == KEPT[logs]
    assert (answer.stored, answer.rejected) == (len(KEPT[logs]), 3 - len(KEPT[logs]))
    assert ("otlp.logs" in answer.message) == (logs != "all")
    assert sum(statuses(store).values()) == 3


BAD = {
    "trace_id": record(trace="ab"),
    "span_id": record(span_id="ab"),
    "too_old": record(time=1),
    "in_the_future": record(time=2**63),
}


@pytest.mark.parametrize("reason", BAD)
def test_record_that_cannot_be_stored_is_refused_alone_with_the_reason(store: Store, reason: str) -> None:
    answer = export(store, BAD[reason], record("fine"))
    assert (answer.outcome, answer.stored, answer.rejected) == (Outcome.PARTIAL, 1, 1)
    assert counted(store.metrics, "tidegauge_ingest_left_out_log_records_total", reason=reason) == 1
    assert statuses(store) == {"stored": 1, "rejected": 1}


def test_record_keeps_what_it_said(store: Store) -> None:
    sent = record(
        "checkout",
        {"cart": [1, 2.5]},
        attributes={"user.id": "jane", "n": 1},
        severity_number=13,
        severity_text="warning",
    )
    export(store, sent, resource={"service.name": "shop", "tenant.id": "acme", "deployment.environment.name": "prod"})
    columns = "trace_id, span_id, severity, severity_number, event_name, body, service, environment, tenant"
    assert one(store, columns, "log_records") == (
        TRACE, SPAN, "WARN", 13, "checkout", '{"cart":[1,2.5]}', "shop", "prod", "acme",
    )  # fmt: skip
    text = one(store, "attributes", "log_records")[0]
    kept = json.loads(text)
    assert (kept["log"]["n"], kept["body_is_json"], kept["severity_text"]) == (1, True, "warning")
    assert "jane" not in text
    assert "$hashed" in kept["log"]["user.id"]


def test_equal_records_of_one_request_are_two(store: Store) -> None:
    assert export(store, record("tick"), record("tick")).stored == 2


def test_records_without_time_are_one_only_if_their_request_is(store: Store) -> None:
    assert export(store, record("tick", time=0)).stored == 1
    assert export(store, record("tick", time=0)).duplicates == 1
    assert export(store, record("tick", time=0), record("tock")).stored == 2


def test_json_as_javascript_sends_it_is_read(store: Store) -> None:
    sent = {
        "timeUnixNano": str(AT),
        "severityNumber": 9,
        "traceId": TRACE,
        "spanId": SPAN,
        "eventName": "gen_ai.user.message",
        "body": {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "hi \\ud83d"}}]}},
    }
    document = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": [sent]}]}]}
    store.put("spans", a_span())
    assert send(store, json.dumps(document).encode(), media=JSON).stored == 1
    assert "hi" in one(store, "input_messages")[0]


def test_long_body_is_cut_and_says_so(store: Store) -> None:
    answer = export(store, record("long", "x" * 1000), max_attribute_bytes=300)
    text, attributes = one(store, "body, attributes", "log_records")
    assert (len(text), json.loads(attributes)["truncated"]) == (300, {"body": 700})
    assert "cut" in answer.message


def test_contents_alone_reach_evaluators_within_the_settling_time(store: Store) -> None:
    store.put("spans", a_span())
    export(store, *LEGACY)
    pending = store.reads.pending_requests(after_seq=0, settled_before=RECORDED_NOW, limit=10)
    assert [json.loads(text) for text in pending.column("output_messages").to_pylist()] == [LEGACY_OUT]
