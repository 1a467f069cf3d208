"""What requests take over from other spans of their call and their trace."""

import itertools
from typing import Any

import pytest

from tests.store_kit import Store, span

STREAM = span(
    "call",
    lasts=0.1,
    request_model="m",
    instance="app-1",
    input_messages='[{"role":"user","parts":[{"type":"text","content":"hi"}]}]',
)
ANSWER = span(
    "answer",
    trace="t2",
    at=2.1,
    lasts=0.0,
    request_model="m",
    response_model="m",
    instance="app-1",
    request_duration_s=2.0,
    input_tokens=8,
    output_tokens=9,
    finish_reason="stop",
    input_messages=STREAM["input_messages"],
    output_messages='[{"role":"assistant","parts":[{"type":"text","content":"ho"}]}]',
)
BOTH = pytest.mark.parametrize("order", [(STREAM, ANSWER), (ANSWER, STREAM)], ids=["call_first", "answer_first"])


def requests(store: Store) -> list[tuple[Any, ...]]:
    return store.sql("SELECT span_id, input_tokens, output_tokens, finish_reason FROM requests ORDER BY span_id")


@BOTH
@pytest.mark.parametrize("together", [True, False], ids=["one_export", "an_export_each"])
def test_an_answer_that_comes_apart_fills_its_call(store: Store, order: Any, together: bool) -> None:
    for rows in [order] if together else [[row] for row in order]:
        store.put("spans", *rows)
    assert requests(store) == [("call", 8, 9, "stop")]
    assert store.sql("SELECT output_messages FROM requests") == [(ANSWER["output_messages"],)]


@BOTH
def test_a_call_finds_its_answer_across_a_restart(store: Store, order: Any) -> None:
    store.clock.time += 3
    store.put("spans", order[0])
    store.reopen()
    store.put("spans", order[1])
    assert requests(store) == [("call", 8, 9, "stop")]


@pytest.mark.parametrize(
    "other",
    [
        {"input_messages": "[]"},
        {"instance": "app-2"},
        {"tenant": "bank"},
        {"request_model": "n"},
        {"request_duration_s": 2.5},
    ],
    ids=lambda value: next(iter(value)),
)
def test_another_prompt_instance_tenant_model_or_time_is_another_call(store: Store, other: dict[str, Any]) -> None:
    store.put("spans", STREAM, {**ANSWER, **other})
    assert requests(store) == [("answer", 8, 9, "stop"), ("call", None, None, None)]


def test_answers_of_equal_calls_are_each_taken_once(store: Store) -> None:
    later = {key: STREAM[key] for key in ("request_model", "instance", "input_messages")}
    calls = [STREAM, span("call2", trace="t3", at=1.0, lasts=0.1, **later)]
    answers = [ANSWER, {**ANSWER, "span_id": "answer2", "input_tokens": 80, **_at(3.1)}]
    store.put("spans", *calls, *answers)
    assert requests(store) == [("call", 8, 9, "stop"), ("call2", 80, 9, "stop")]


def _at(at: float) -> dict[str, Any]:
    made = span("x", at=at, lasts=0.0)
    return {"start_time": made["start_time"], "end_time": made["end_time"]}


CLIENT = span("client", lasts=2.0, response_id="r")
ENGINE = span(
    "engine", at=0.1, parent_span_id="client", vantage="engine", response_id="r", input_tokens=12, output_tokens=3
)


@pytest.mark.parametrize("order", [(CLIENT, ENGINE), (ENGINE, CLIENT)], ids=["client_first", "engine_first"])
def test_usage_that_the_client_does_not_know_is_the_engines(store: Store, order: Any) -> None:
    for row in order:
        store.put("spans", row)
    assert requests(store) == [("client", 12, 3, None)]


def test_usage_that_the_client_knows_stays(store: Store) -> None:
    store.put("spans", {**CLIENT, "input_tokens": 10, "output_tokens": 2}, ENGINE)
    assert requests(store) == [("client", 10, 2, None)]


def test_an_embedding_within_a_chat_is_a_call_of_its_own(store: Store) -> None:
    store.put(
        "spans",
        span("chat", lasts=2.0, input_tokens=10, output_tokens=5),
        span("embedding", at=0.1, kind="embedding", parent_span_id="chat", input_tokens=4),
    )
    assert requests(store) == [("chat", 10, 5, None), ("embedding", 4, None, None)]


ROOT = span("root", kind="chain", vantage=None, lasts=5.0, session_id="s", user_id="u")
STEP = span("step", kind="chain", vantage=None, parent_span_id="root", lasts=4.0)
CALL = span("call", parent_span_id="step", at=1.0)


@pytest.mark.parametrize(
    "order",
    list(itertools.permutations([ROOT, STEP, CALL])),
    ids=lambda order: "-".join(row["span_id"] for row in order),
)
def test_a_session_said_above_is_the_calls_too(store: Store, order: Any) -> None:
    for row in order:
        store.put("spans", row)
    assert store.sql("SELECT session_id, user_id FROM requests") == [("s", "u")]


def test_a_session_goes_neither_sideways_nor_to_another_tenant(store: Store) -> None:
    beside = span("beside", kind="chain", vantage=None, parent_span_id="step", session_id="other")
    store.put("spans", beside, STEP, CALL, {**ROOT, "tenant": "bank"})
    assert store.sql("SELECT session_id, user_id FROM requests") == [(None, None)]
