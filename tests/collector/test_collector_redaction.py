"""What must not reach the disk does not, and what remains is still JSON, still joins and still means the same."""

import json
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import prometheus_client
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from catalog.instruments import Instruments
from collector.otlp.decode import Decoder
from collector.otlp.settings import OtlpSettings
from collector.redaction.columns import Privacy
from collector.redaction.requests import RequestPrivacy
from collector.redaction.settings import PrivacySettings
from collector.redaction.texts import Texts
from store.batch import Batch

KEY = b"a key of this data directory"
ALL = ("secret", "card", "iban", "email", "phone", "ip")
VECTORS = tomllib.loads((Path(__file__).parents[1] / "data" / "redaction" / "vectors.toml").read_text())
CARD, MAIL = "4111 1111 1111 1111", "someone@example.com"


def cases(group: str) -> list[tuple[str, str]]:
    return [(detector, text) for detector, texts in VECTORS[group].items() for text in texts]


def redacted(text: str, *detectors: str, **settings: Any) -> str:
    return Texts(PrivacySettings(redact=detectors or ALL, **settings), KEY).any(text, Counter())


@pytest.mark.parametrize(("detector", "text"), cases("found"))
@pytest.mark.parametrize("around", ["{}", "take {}, please", "x\n{}\ny", '("{}")', "{} 123 and MORE", "{} {}"])
def test_is_found_wherever_it_stands(detector: str, text: str, around: str) -> None:
    made = redacted(around.replace("{}", text), detector)
    assert text not in made
    assert f"[{detector.upper()}]" in made


@pytest.mark.parametrize(("detector", "text"), cases("left"))
def test_what_only_looks_like_it_is_left(detector: str, text: str) -> None:
    assert redacted(f"so {text} it is", detector) == f"so {text} it is"


@pytest.mark.parametrize(("detector", "text"), cases("found"))
def test_the_prefilter_lets_nothing_pass_that_would_be_found(detector: str, text: str) -> None:
    texts = Texts(PrivacySettings(redact=(detector,)), KEY)
    document = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"a\n{text}\tb"}]}])
    hidden = "@" if "@" in text else "4"
    escaped = document.replace(hidden, f"\\u00{ord(hidden):02x}")
    for form in (text, document, escaped, json.dumps({"inner": document})):
        assert pa.compute.match_substring_regex(pa.array([form]), texts.prefilter).to_pylist() == [True], form
        assert json.loads(redacted(json.dumps(form), detector)) != form


def test_json_stays_json_and_json_within_it_too() -> None:
    inner = json.dumps({"note": f"line\n{MAIL}", "n": 4111111111111111})
    made = json.loads(redacted(json.dumps({"outer": [inner, None, 1.5], "authorization": "anything"})))
    assert made == {
        "outer": ['{"note":"line\\n[EMAIL]","n":4111111111111111}', None, 1.5],
        "authorization": "[SECRET]",
    }


def test_text_without_a_find_is_returned_as_it_came() -> None:
    text = '{"a" :  [1, "ö", "\\u00e4"]}'
    assert redacted(text) == text


def test_placeholder_keeps_a_stable_keyed_hash_where_asked_for() -> None:
    one, other = redacted(MAIL, keep_hash_of=("email",)), redacted("other@example.com", keep_hash_of=("email",))
    again = redacted(f"mail {MAIL}", keep_hash_of=("email",))
    assert one.startswith("[EMAIL:")
    assert again == f"mail {one}"
    assert one != other
    foreign = Texts(PrivacySettings(redact=("email",), keep_hash_of=("email",)), b"another key").any(MAIL, Counter())
    assert foreign != one


def test_own_pattern_replaces_its_group() -> None:
    custom = [{"name": "ticket", "pattern": r"ticket ([A-Z]{2}-\d+)"}]
    assert redacted("see ticket AB-1234 now", "card", custom=custom) == "see ticket [TICKET] now"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"custom": [{"name": "x", "pattern": "("}]}, "not a pattern of RE2"),
        ({"custom": [{"name": "x", "pattern": "a*"}]}, "empty text"),
        ({"custom": [{"name": "card", "pattern": "a"}]}, "same name"),
        ({"keep_hash_of": ["email"]}, "neither in redact"),
        ({"redact": ["creditcard"]}, "card"),
        ({"tenants": {"a": {"capture": "none"}}}, "full"),
    ],
)
def test_wrong_settings_name_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrivacySettings.model_validate(settings)


def test_yaml_s_bare_off_means_off() -> None:
    assert PrivacySettings.model_validate({"tenants": {"a": {"capture": False}}}).of("a").capture == "off"


@given(st.text(max_size=400))
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once


# --- whole requests --------------------------------------------------------------------------------------------------


def request() -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    now = time.time_ns()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    for number, tenant in enumerate(("acme", "bank", "corp")):
        span = scope.spans.add(name="chat", kind=3, trace_id=bytes([number + 1] * 16), span_id=bytes([number + 1] * 8))
        span.start_time_unix_nano, span.end_time_unix_nano = now - 10**9, now
        message = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"pay {CARD} to {MAIL}"}]}])
        values = {
            "tenant.id": tenant,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "session.id": MAIL,
            "gen_ai.input.messages": message,
            "gen_ai.output.messages": message.replace("user", "assistant"),
            "input.value": f"pay {CARD}",
            "note": f"{'long ' * 60}",
            "plan": "gold",
            "http.request.header.authorization": "hunter2",
        }
        for key, value in values.items():
            span.attributes.add(key=key).value.string_value = value
        event = span.events.add(name="gen_ai.content.prompt", time_unix_nano=now)
        event.attributes.add(key="gen_ai.prompt").value.string_value = f"pay {CARD} to {MAIL}"
        span.status.message = f"could not charge {CARD}"
    return made


def decoded(message: ExportTraceServiceRequest) -> pa.Table:
    return Decoder(OtlpSettings(), KEY).decode(message, time.time()).table


def privacy(**settings: Any) -> Privacy:
    metrics = Instruments(prometheus_client.CollectorRegistry())
    return Privacy(PrivacySettings.model_validate({"redact": ALL, **settings}), KEY, metrics)


def text_of(table: pa.Table, row: int) -> str:
    return json.dumps(table.slice(row, 1).to_pylist(), default=str)


def test_no_column_of_a_span_keeps_what_is_redacted() -> None:
    made = privacy().batch(Batch({"spans": decoded(request())})).tables["spans"]
    for row in range(made.num_rows):
        assert CARD not in text_of(made, row)
        assert MAIL not in text_of(made, row)
        assert "hunter2" not in text_of(made, row)
    first = made.to_pylist()[0]
    assert json.loads(first["input_messages"])[0]["parts"][0]["content"] == "pay [CARD] to [EMAIL]"
    assert json.loads(first["attributes"])["span"]["plan"] == "gold"
    sessions = made.column("session_id").to_pylist()
    assert sessions[0].startswith("[EMAIL:")
    assert len(set(sessions)) == 1
    assert made.column("tenant").to_pylist() == ["acme", "bank", "corp"]


def test_each_tenant_keeps_what_it_wants() -> None:
    policies = {"bank": {"capture": "off"}, "corp": {"capture": "hashed"}}
    made = privacy(redact=[], tenants=policies).table(decoded(request()))
    acme, bank, corp = made.to_pylist()
    assert CARD in acme["input_messages"]
    assert (bank["input_messages"], bank["output_messages"], bank["status_message"]) == (None, None, None)
    assert CARD not in text_of(made, 1)
    assert CARD not in text_of(made, 2)
    assert "long long" not in text_of(made, 1)
    attributes = json.loads(bank["attributes"])
    assert attributes["span"]["plan"] == "gold"
    assert attributes["span"]["note"] == {"$withheld": True}
    asked, answered = json.loads(corp["input_messages"])[0], json.loads(corp["output_messages"])[0]
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    assert asked["parts"][0]["content"].startswith("hash:")
    assert asked["parts"][0]["content"] == answered["parts"][0]["content"]


def test_sampled_keeps_whole_traces_and_its_share_of_them() -> None:
    made = privacy(capture="sampled", sample_rate=0.3)
    kept = [made.capture("acme", f"{number:032x}").value for number in range(5000)]
    assert set(kept) == {"full", "off"}
    # Five standard deviations.
    assert abs(kept.count("full") - 1500) < 5 * (5000 * 0.3 * 0.7) ** 0.5
    assert kept == [made.capture("bank", f"{number:032x}").value for number in range(5000)]


def test_a_recorded_request_holds_no_more_than_the_rows_do() -> None:
    policies = {"bank": {"capture": "off"}, "corp": {"capture": "hashed"}}
    rules = privacy(tenants=policies)
    kind, body = RequestPrivacy(rules, ("tenant.id",)).clean(
        "/v1/traces", "application/x-protobuf", request().SerializeToString()
    )
    assert kind == "application/x-protobuf"
    for secret in (CARD, MAIL, "hunter2"):
        assert secret.encode() not in body
    again = rules.table(decoded(ExportTraceServiceRequest.FromString(body))).to_pylist()
    whole = rules.table(decoded(request())).to_pylist()
    for name in ("trace_id", "tenant", "request_model", "input_tokens", "status", "kind"):
        assert [row[name] for row in again] == [row[name] for row in whole]
    assert again[0]["input_messages"] == whole[0]["input_messages"]
    assert again[1]["input_messages"] is None


def test_what_was_done_is_counted() -> None:
    metrics = Instruments(prometheus_client.CollectorRegistry())
    rules = Privacy(PrivacySettings(redact=("card",), tenants={"bank": {"capture": "off"}}), KEY, metrics)  # type: ignore[dict-item]
    rules.table(decoded(request()))
    cards = metrics.counters.tidegauge_redactions_total.labels("card")._value.get()
    # Two tenants: prompt, answer, raw input, event and status message each.
    assert cards == 10
    assert metrics.counters.tidegauge_content_withheld_total.labels("off")._value.get() == 1


def test_what_evaluators_say_of_an_answer_is_content_too() -> None:
    scores = pa.table(
        {
            "trace_id": ["a", "b"],
            "tenant": ["acme", "bank"],
            "explanation": [f"it names {CARD}", f"it names {CARD}"],
            "source_key": [MAIL, MAIL],
        }
    )
    made = privacy(tenants={"bank": {"capture": "off"}}).batch(Batch({"scores": scores})).tables["scores"]
    assert made.column("explanation").to_pylist() == ["it names [CARD]", None]
    assert made.column("source_key").to_pylist() == [MAIL, MAIL]


def test_other_tables_pass_untouched() -> None:
    batch = Batch({"incidents": pa.table({"labels": [CARD]})})
    assert privacy().batch(batch) is batch
