"""Pages of requests and scores, and whole traces: the same as plain SQL finds, whatever the rows and who asks."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from store.followers import Followers
from store.places import SPAN_PLACES
from store.reads_pages import SORTS, Pages
from store.scope import EVERYTHING, Scope, Selection, moment
from tests.store_kit import START, Store

TENANTS = ("a", "b", None)
ONLY_A = Scope(frozenset({"a"}))


def _spans(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Requests with many equal keys, and some that say nothing."""
    return [
        {
            "trace_id": f"{rng.randrange(count // 3):032x}",
            "span_id": f"{number:016x}",
            "kind": "llm",
            "vantage": "client",
            "start_time": moment(START + rng.randrange(20)),
            "end_time": moment(START + 30),
            "duration_s": rng.choice([0.5, 1.0, 2.0, None, math.nan]),
            "output_tokens": rng.choice([1, 2, None]),
            "cost_usd": None,
            "tenant": rng.choice(TENANTS),
            "request_model": rng.choice(["m", "n"]),
            "status": "ok",
        }
        for number in range(count)
    ]


@pytest.fixture
def spans(store: Store) -> list[dict[str, Any]]:
    rows = _spans(random.Random(3), 120)
    for first in range(0, len(rows), 40):
        store.put("spans", *rows[first : first + 40])
    # No receiver writes these, but nothing in the schema forbids them.
    for row in rows[::20]:
        row["start_time"] = None
        store.sql(f"UPDATE spans SET start_time = NULL WHERE span_id = '{row['span_id']}'")
    return rows


def _plain(rows: Sequence[dict[str, Any]], sort: str, chosen: Callable[[dict[str, Any]], bool]) -> list[str]:
    column = {"duration": "duration_s", "cost": "cost_usd"}.get(sort, sort)
    sign = 1 if sort == "oldest" else -1

    def key(row: dict[str, Any]) -> tuple[bool, float, str, str]:
        value = row["start_time"].timestamp() if sort in ("newest", "oldest") and row["start_time"] else row.get(column)
        unsaid = value is None or not math.isfinite(value)
        return unsaid, 0.0 if unsaid else sign * value, row["trace_id"], row["span_id"]

    return [row["span_id"] for row in sorted(filter(chosen, rows), key=key)]


def _walk(pages: Pages, scope: Scope, selection: Selection, sort: str, limit: int) -> list[str]:
    found, after = [], None
    while rows := pages.requests(scope, selection, sort=sort, limit=limit, after=after):
        found += [row["span_id"] for row in rows]
        after = [rows[-1][name] for name in ("page_key", "trace_id", "span_id")]
    return found


@pytest.mark.parametrize("sort", sorted(SORTS))
@pytest.mark.parametrize(
    ("scope", "selection", "chosen"),
    [
        pytest.param(
            EVERYTHING,
            Selection({"model": "m"}, START + 3, START + 15),
            lambda row: (
                row["request_model"] == "m"
                and row["start_time"] is not None
                and moment(START + 3) <= row["start_time"] < moment(START + 15)
            ),
            id="window",
        ),
        pytest.param(ONLY_A, Selection(), lambda row: row["tenant"] == "a", id="one_tenant"),
    ],
)
def test_pages_put_together_are_the_whole_list_in_order(
    store: Store,
    spans: list[dict[str, Any]],
    sort: str,
    scope: Scope,
    selection: Selection,
    chosen: Callable[[dict[str, Any]], bool],
) -> None:
    requests = {span_id for (span_id,) in store.sql("SELECT span_id FROM requests")}
    expected = _plain(spans, sort, lambda row: row["span_id"] in requests and chosen(row))
    assert _walk(Pages(store.reads), scope, selection, sort, 7) == expected


@pytest.mark.parametrize("value", [1e300, -1e300, 0, -(2**62), 2**63], ids=str)
def test_page_behind_a_made_up_key_is_of_the_scope(store: Store, spans: list[dict[str, Any]], value: float) -> None:
    for sort in SORTS:
        rows = Pages(store.reads).requests(ONLY_A, Selection(), sort=sort, after=[value, "'; --", ""])
        assert {row["tenant"] for row in rows} <= {"a"}


@pytest.mark.parametrize("followed", [False, True], ids=["in_the_tail", "in_the_places"])
def test_trace_is_found_whole_wherever_it_lies(store: Store, spans: list[dict[str, Any]], followed: bool) -> None:
    if followed:
        assert Followers(store.database, run=50).follow(60) == len(spans)
        late = {**spans[0], "span_id": "f" * 16, "start_time": moment(START + 500)}
        store.put("spans", late)
        spans = [*spans, late]
    for trace_id in {row["trace_id"] for row in spans}:
        found = [row["span_id"] for row in store.reads.trace(EVERYTHING, trace_id)]
        assert sorted(found) == sorted(row["span_id"] for row in spans if row["trace_id"] == trace_id)
        listed = Pages(store.reads).requests(EVERYTHING, Selection({"trace_id": trace_id}), limit=1000)
        requests = store.sql(f"SELECT span_id FROM requests WHERE trace_id = '{trace_id}'")
        assert sorted(row["span_id"] for row in listed) == sorted(span_id for (span_id,) in requests)
    assert store.reads.trace(EVERYTHING, "no' OR true --") == []


def test_trace_with_the_same_hash_is_not_shown(store: Store) -> None:
    spans = _spans(random.Random(1), 12)
    store.put("spans", *spans)
    Followers(store.database, run=50).step()
    mine, other = (
        spans[0]["trace_id"],
        next(row["trace_id"] for row in spans if row["trace_id"] != spans[0]["trace_id"]),
    )
    store.sql(
        f"INSERT INTO {SPAN_PLACES.name} SELECT md5_number_lower('{mine}'), first_time, last_time"
        f" FROM {SPAN_PLACES.name} WHERE trace_hash = md5_number_lower('{other}')"
    )
    assert {row["trace_id"] for row in store.reads.trace(EVERYTHING, mine)} == {mine}


@pytest.mark.parametrize(
    ("tenants", "shown"),
    [(["a"], ["call-a", "engine-a"]), (["b"], ["call-b"]), (["c"], []), (["a", "b"], ["call-a", "call-b", "engine-a"])],
    ids=["a", "b", "stranger", "both"],
)
def test_engine_spans_of_a_shared_trace_go_to_those_whose_call_it_is(
    store: Store, tenants: list[str], shown: list[str]
) -> None:
    base = {"trace_id": "1" * 32, "kind": "llm", "start_time": moment(START), "end_time": moment(START + 1)}
    store.put(
        "spans",
        {**base, "span_id": "call-a", "tenant": "a", "vantage": "client"},
        {**base, "span_id": "call-b", "tenant": "b", "vantage": "client"},
        {**base, "span_id": "engine-a", "parent_span_id": "call-a", "vantage": "engine"},
    )
    found = store.reads.trace(Scope(frozenset(tenants)), "1" * 32)
    assert sorted(row["span_id"] for row in found) == shown
