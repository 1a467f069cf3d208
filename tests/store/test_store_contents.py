"""What log records say of spans: it finds its span's row whichever of the two comes first, once."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from store.batch import Batch
from store.contents import APPEND, FILL
from store.scope import moment
from tests.store_kit import START, Store, as_table, span

Row = dict[str, Any]


def message(text: str, role: str = "user") -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def part(record: str, at: float = 0.5, span_id: str | None = "s1", mode: str = FILL, **columns: Any) -> Row:
    return {
        "record_id": record,
        "trace_id": "t1",
        "span_id": span_id,
        "time": moment(START + at),
        "position": 0,
        "mode": mode,
        **columns,
    }


def send(store: Store, *parts: Row, spans: tuple[Row, ...] = ()) -> None:
    """One export of log records, each with its part, committed together with spans."""
    records = [
        {"record_id": p["record_id"], "time": p["time"], "observed_time": p["time"], "trace_id": p["trace_id"]}
        for p in parts
    ]
    tables = {"spans": as_table("spans", spans)} if spans else {}
    tables |= {"log_records": as_table("log_records", records), "span_contents": as_table("span_contents", parts)}
    store.writer.submit(Batch(tables)).result(timeout=20)


def contents(store: Store, span_id: str = "s1") -> tuple[str | None, str | None, str | None]:
    rows = store.sql(f"SELECT input_messages, output_messages, finish_reason FROM spans WHERE span_id = '{span_id}'")
    assert len(rows) == 1
    return rows[0]


def span_first(store: Store, one: Row, *parts: Row) -> None:
    store.put("spans", one)
    send(store, *parts)


def logs_first(store: Store, one: Row, *parts: Row) -> None:
    send(store, *parts)
    store.put("spans", one)


def together(store: Store, one: Row, *parts: Row) -> None:
    send(store, *parts, spans=(one,))


def restarted_between(store: Store, one: Row, *parts: Row) -> None:
    send(store, *parts)
    store.reopen()
    store.put("spans", one)


def one_by_one_backwards(store: Store, one: Row, *parts: Row) -> None:
    *later, first = parts[::-1]
    for item in later:
        send(store, item)
    store.put("spans", one)
    store.reopen()
    send(store, first)


ORDERS = [span_first, logs_first, together, restarted_between, one_by_one_backwards]
in_any_order = pytest.mark.parametrize("arrive", ORDERS, ids=[order.__name__ for order in ORDERS])
Arrive = Callable[..., None]


@in_any_order
def test_event_with_all_contents_fills_its_span(store: Store, arrive: Arrive) -> None:
    event = part("r1", input_messages=message("hi"), output_messages=message("ho"), facts='{"finish_reason": "stop"}')
    arrive(store, span("s1"), event)
    assert contents(store) == (message("hi"), message("ho"), "stop")
    assert store.sql("SELECT count(*) FROM span_contents") == [(0,)]


@in_any_order
def test_messages_of_one_record_each_become_one_list_by_time(store: Store, arrive: Arrive) -> None:
    texts = ["you are terse", "hi", "and?"]
    parts = [
        part(f"r{number}", at=number, mode=APPEND, input_messages=message(text)) for number, text in enumerate(texts)
    ]
    arrive(store, span("s1"), *parts)
    assert json.loads(contents(store)[0] or "") == [json.loads(message(text))[0] for text in texts]


@in_any_order
def test_what_a_span_says_itself_stays(store: Store, arrive: Arrive) -> None:
    event = part("r1", input_messages=message("other"), output_messages=message("ho"))
    older = part("r2", at=1, mode=APPEND, input_messages=message("third"))
    arrive(store, span("s1", input_messages=message("hi")), event, older)
    assert contents(store) == (message("hi"), message("ho"), None)


@in_any_order
def test_record_that_comes_twice_counts_once(store: Store, arrive: Arrive) -> None:
    parts = [part("r1", mode=APPEND, input_messages=message("hi")), part("r2", at=1, output_messages=message("ho"))]
    arrive(store, span("s1"), *parts)
    send(store, *parts)
    store.reopen()
    send(store, *parts)
    assert contents(store)[:2] == (message("hi"), message("ho"))
    assert store.sql("SELECT count(*) FROM log_records") == [(2,)]


def test_record_without_a_span_finds_it_by_its_response(store: Store) -> None:
    store.put("spans", span("s1", response_id="chatcmpl-1"))
    send(store, part("r1", span_id=None, response_id="chatcmpl-1", input_messages=message("hi")))
    send(store, part("r2", span_id=None, response_id="chatcmpl-2", input_messages=message("ho")))
    store.put("spans", span("s2", response_id="chatcmpl-2"))
    assert (contents(store, "s1")[0], contents(store, "s2")[0]) == (message("hi"), message("ho"))


def test_contents_of_another_tenant_do_not_enter(store: Store) -> None:
    store.put("spans", span("s1", tenant="a"))
    send(store, part("r1", tenant="b", input_messages=message("forged")))
    assert contents(store)[0] is None
    send(store, part("r2", tenant="a", input_messages=message("mine")))
    assert contents(store)[0] == message("mine")


def test_error_type_goes_to_failed_spans_alone(store: Store) -> None:
    facts = '{"error_type": "Timeout"}'
    send(store, part("r1", facts=facts), part("r2", span_id="s2", facts=facts))
    store.put("spans", span("s1"), span("s2", status="error"))
    assert store.sql("SELECT span_id, error_type FROM spans ORDER BY span_id") == [("s1", None), ("s2", "Timeout")]


def test_contents_past_the_window_stay_unclaimed_and_are_counted(store: Store) -> None:
    send(store, part("r1", input_messages=message("hi")))
    store.clock.time += store.settings.content_window_seconds + 1
    store.put("spans", span("s1"))
    assert contents(store)[0] is None
    assert store.sql("SELECT record_id, state FROM span_contents") == [("r1", "waiting")]
    value = store.metrics.registry.get_sample_value
    assert value("tidegauge_content_events_total", {"outcome": "unclaimed"}) == 1
    assert value("tidegauge_content_waiting") == 0


def test_appended_messages_are_not_kept_twice_past_the_window(store: Store) -> None:
    together(store, span("s1"), part("r1", mode=APPEND, input_messages=message("hi")))
    assert store.sql("SELECT state FROM span_contents") == [("applied",)]
    store.clock.time += store.settings.content_window_seconds + 61
    store.put("spans", span("s2"))
    assert store.sql("SELECT count(*) FROM span_contents") == [(0,)]


def test_commit_that_failed_leaves_contents_as_they_were(store: Store) -> None:
    send(store, part("r1", input_messages=message("hi")))
    bad = as_table("scores", [{"score_id": None, "evaluator": "e"}])  # the primary key refuses it
    refused = store.writer.submit(Batch({"spans": as_table("spans", [span("s1")]), "scores": bad}))
    assert refused.exception(timeout=20) is not None
    store.put("spans", span("s1"))
    assert contents(store)[0] == message("hi")


def test_contents_that_come_while_a_request_settles_are_read_with_it(store: Store) -> None:
    store.put("spans", span("s1"))
    store.clock.time += 3
    send(store, part("r1", output_messages=message("ho", "assistant")))
    pending = store.reads.pending_requests(after_seq=0, settled_before=START, limit=10)
    assert pending.column("output_messages").to_pylist() == [message("ho", "assistant")]


def test_record_without_any_time_is_known_when_it_comes_again(store: Store) -> None:
    record = {"record_id": "r1", "time": moment(START), "observed_time": None}
    again = {**record, "time": moment(START) + timedelta(minutes=5)}
    assert store.put("log_records", record).rows == {"log_records": 1}
    store.reopen()
    assert store.put("log_records", again).duplicates == {"log_records": 1}
