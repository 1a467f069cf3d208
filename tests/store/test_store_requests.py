"""Which spans describe the same call, in whatever order they arrive."""

import itertools
from typing import Any

import pytest

from tests.store_kit import Store, span

CLIENT = span("c", lasts=2.0, response_id="r1", tenant="bank")
GATEWAY = span("g", at=0.1, lasts=1.8, parent_span_id="c", vantage="gateway")
ENGINE = span(
    "e", at=0.2, lasts=1.5, parent_span_id="g", vantage="engine", response_id="r1", queue_time_s=0.7, instance="gpu-1"
)


def requests(store: Store) -> list[tuple[Any, ...]]:
    return store.sql(
        "SELECT span_id, engine_span_id, engine_queue_time_s, engine_instance FROM requests ORDER BY span_id"
    )


@pytest.mark.parametrize(
    "order",
    list(itertools.permutations([CLIENT, GATEWAY, ENGINE])),
    ids=lambda order: "".join(row["span_id"] for row in order),
)
@pytest.mark.parametrize("together", [True, False], ids=["one_export", "an_export_each"])
def test_client_stands_for_the_call_whatever_the_order(store: Store, order: Any, together: bool) -> None:
    for rows in [order] if together else [[row] for row in order]:
        store.put("spans", *rows)
    assert requests(store) == [("c", "e", 0.7, "gpu-1")]
    assert len(store.sql("SELECT DISTINCT request_id FROM spans")) == 1


def test_engine_stands_for_a_call_that_no_client_reports(store: Store) -> None:
    store.put("spans", ENGINE)
    assert requests(store) == [("e", None, None, None)]


def test_spans_between_client_and_engine_do_not_part_them(store: Store) -> None:
    http = span("h", parent_span_id="c", kind="other")
    store.put("spans", {**ENGINE, "parent_span_id": "h", "response_id": None}, http, CLIENT)
    assert requests(store) == [("c", "e", 0.7, "gpu-1")]


def test_response_id_pairs_across_traces(store: Store) -> None:
    store.put("spans", {**ENGINE, "trace_id": "t2", "parent_span_id": None})
    store.put("spans", CLIENT)
    assert requests(store) == [("c", "e", 0.7, "gpu-1")]


def test_containment_in_time_pairs_when_nothing_else_does(store: Store) -> None:
    store.put("spans", {**ENGINE, "parent_span_id": "lost", "response_id": None, "request_model": "m"})
    store.put("spans", {**CLIENT, "request_model": "m"})
    assert requests(store) == [("c", "e", 0.7, "gpu-1")]


def test_containment_does_not_pair_different_models(store: Store) -> None:
    store.put("spans", {**ENGINE, "parent_span_id": "lost", "response_id": None, "request_model": "other"})
    store.put("spans", {**CLIENT, "request_model": "m"})
    assert [row[0] for row in requests(store)] == ["c", "e"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_wrapper_with_summed_usage_is_no_request(store: Store, order: tuple[int, ...]) -> None:
    rows = [
        span("wrapper", lasts=9.0, output_tokens=30),
        span("first", at=1.0, parent_span_id="wrapper", output_tokens=10),
        span("second", at=5.0, parent_span_id="wrapper", output_tokens=20),
    ]
    for index in order:
        store.put("spans", rows[index])
    assert store.sql("SELECT sum(output_tokens), count(*) FROM requests") == [(30, 2)]


def test_wrapper_around_one_call_counts_once_as_the_inner_span(store: Store) -> None:
    store.put("spans", span("inner", at=1.0, parent_span_id="outer", lasts=0.5), span("outer", lasts=3.0))
    assert [row[0] for row in requests(store)] == ["inner"]


def test_better_vantage_takes_over_after_a_restart(store: Store) -> None:
    store.put("spans", ENGINE, GATEWAY)
    store.reopen()
    store.put("spans", CLIENT)
    assert requests(store) == [("c", "e", 0.7, "gpu-1")]


def test_other_kinds_of_spans_are_no_requests(store: Store) -> None:
    store.put("spans", span("a", kind="agent"), span("t", kind="tool", parent_span_id="a"))
    assert requests(store) == []


def test_cycle_of_parents_ends(store: Store) -> None:
    store.put("spans", span("a", parent_span_id="b"), span("b", parent_span_id="a"))
    assert len(requests(store)) >= 1


def test_endless_trace_costs_what_it_holds_and_no_more(store: Store) -> None:
    for first in range(0, 20_000, 5_000):
        store.put("spans", *(span(f"s{index}", parent_span_id="root") for index in range(first, first + 5_000)))
    assert store.sql("SELECT count(*) FROM requests") == [(20_000,)]
