"""However spans come, doubled, in any order and commits, over restarts: rows are as if all were known all the time."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.batch import Batch
from store.requests import FACTS, RequestResolver
from store.writer import StoreUnavailable
from tests.store_kit import START, Store, as_table, span

Row = dict[str, Any]
Key = tuple[str, str]
# The spans of its request, whether it stands for that, and the engine's span.
Said = tuple[frozenset[Key], bool, str | None]

TRACES = ("a" * 32, "t3")
SPAN_IDS = tuple(f"{number:016x}" for number in range(4))


@st.composite
def spans(draw: st.DrawFn) -> Row:
    """A span that may be of the same call as others: traces, parents and responses are few."""
    number = draw(st.integers(0, len(SPAN_IDS) - 1))
    return span(
        SPAN_IDS[number],
        trace=draw(st.sampled_from(TRACES)),
        at=float(draw(st.integers(0, 3))),
        lasts=float(draw(st.integers(1, 4))),
        kind=draw(st.sampled_from(["llm", "llm", "embedding", "agent"])),
        vantage=draw(st.sampled_from(["client", "gateway", "engine"])),
        parent_span_id=draw(st.sampled_from([None, *SPAN_IDS[:number]])),
        response_id=draw(st.sampled_from([None, None, "", "r1", "chatcmpl-2"])),
        response_model=draw(st.sampled_from(["m", "n", None])),
        session_id=draw(st.sampled_from([None, None, "s1", "s2"])),
        queue_time_s=draw(st.sampled_from([None, 0.5])),
    )


# Rows that are committed together, and whether that fails, or the store is opened anew afterwards.
COMMITS = st.lists(
    st.tuples(st.lists(spans(), min_size=1, max_size=6), st.sampled_from(["", "", "fails", "reopen", "reopen"])),
    min_size=1,
    max_size=6,
)


def apart(rows: list[Row], example: int) -> list[Row]:
    """The rows as nothing else in the store has anything to do with them."""
    named = []
    for row in rows:
        ids = {"trace_id": f"{example:04x}{row['trace_id'][4:]}" if len(row["trace_id"]) > 4 else f"t{example}"}
        if row["response_id"]:
            ids["response_id"] = f"{row['response_id']}-{example}"
        named.append({**row, **ids, "tenant": str(example)})
    return named


def new(rows: list[Row], known: set[Key]) -> list[Row]:
    """The rows that were not known, each once."""
    fresh: dict[Key, Row] = {}
    for row in rows:
        fresh.setdefault((row["trace_id"], row["span_id"]), row)
    taken = {key: row for key, row in fresh.items() if key not in known}
    known.update(taken)
    return list(taken.values())


def decided(history: list[list[Row]]) -> dict[Key, Said]:
    """What a resolver that forgets nothing says of each span."""
    resolver = RequestResolver(1e9)
    said: dict[Key, tuple[str | None, bool, str | None]] = {}
    for rows in history:
        said |= {(row["trace_id"], row["span_id"]): (None, False, None) for row in rows}
        facts = [{"prompt_key": None, **dict.fromkeys(FACTS), **row} for row in rows]
        for found in resolver.resolve(facts, START):
            engine = found.engine["span_id"] if found.engine else None
            said[found.trace_id, found.span_id] = (found.request_id, found.is_request, engine)
    return unnamed(said)


def unnamed(said: Mapping[Key, tuple[str | None, bool, str | None]]) -> dict[Key, Said]:
    """Which of its spans a request is named after depends on the order in which they were remembered."""
    together: dict[str | None, set[Key]] = defaultdict(set)
    for key, (request, _, _) in said.items():
        together[request].add(key)
    return {
        key: (frozenset(together[request]) if request else frozenset(), stands, engine)
        for key, (request, stands, engine) in said.items()
    }


def stored(store: Store, example: int) -> dict[Key, Said]:
    rows = store.sql(
        f"SELECT trace_id, span_id, request_id, is_request, engine_span_id FROM spans WHERE tenant = '{example}'"
    )
    found = {(trace_id, span_id): (request, stands, engine) for trace_id, span_id, request, stands, engine in rows}
    assert len(found) == len(rows), "a span is stored twice"
    return unnamed(found)


def test_spans_are_stored_once_and_paired_as_if_nothing_were_forgotten(open_store: Callable[..., Store]) -> None:
    store = open_store()
    numbers = itertools.count()

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(COMMITS)
    def holds(commits: list[tuple[list[Row], str]]) -> None:
        example = next(numbers)
        known: set[Key] = set()
        taken = []
        for rows, event in commits:
            own = apart(rows, example)
            if event == "fails":
                bad = as_table("scores", [{"score_id": None, "evaluator": "e"}])
                with pytest.raises(StoreUnavailable, match="commit failed"):
                    store.writer.submit(Batch({"spans": as_table("spans", own), "scores": bad})).result(timeout=20)
                continue
            done = store.put("spans", *own)
            taken.append(new(own, known))
            assert done.rows == {"spans": len(taken[-1])}
            if event == "reopen":
                store.reopen()
        assert stored(store, example) == decided(taken)

    holds()
