"""A person is removed everywhere, and nobody else."""

import json
from typing import Any

from store.erasure import BY_TRACE, erase
from store.scope import moment
from tests.store_kit import START, Store, span

MINE, SHARED, OTHER = ("a" * 32, "b" * 32, "c" * 32)


def world(store: Store) -> None:
    store.put(
        "spans",
        span("root", trace=MINE, user_id="me"),
        span("tool", trace=MINE),
        span("my turn", trace=SHARED, user_id="me"),
        span("your turn", trace=SHARED, user_id="you"),
        span("yours", trace=OTHER, user_id="you"),
    )
    store.put(
        "scores",
        {"score_id": "1", "trace_id": MINE, "span_id": "tool"},
        {"score_id": "2", "trace_id": MINE},
        {"score_id": "3", "trace_id": SHARED, "span_id": "my turn"},
        {"score_id": "4", "trace_id": SHARED, "span_id": "your turn"},
        {"score_id": "5", "trace_id": OTHER},
    )
    store.put(
        "log_records", *({"record_id": trace[0], "trace_id": trace, "time": moment(START)} for trace in (MINE, OTHER))
    )
    store.put("drift_results", {"result_id": "d", "evidence": json.dumps({"worst_samples": [MINE, OTHER]})})
    store.put("incidents", {"incident_id": "i", "context": json.dumps({"slowest": [{"trace_id": SHARED}]})})


def left(store: Store, column: str, table: str) -> list[Any]:
    return [value for (value,) in store.sql(f"SELECT {column} FROM {table} ORDER BY 1")]


def test_person_is_removed_everywhere_and_nobody_else(store: Store) -> None:
    world(store)
    erased = erase(store.database, "me", moment(START), "local")
    assert left(store, "span_id", "spans") == ["your turn", "yours"]
    assert left(store, "score_id", "scores") == ["4", "5"]
    assert left(store, "trace_id", "log_records") == [OTHER]
    assert left(store, "evidence", "drift_results") == [json.dumps({"worst_samples": ["erased", OTHER]})]
    assert left(store, "context", "incidents") == [json.dumps({"slowest": [{"trace_id": "erased"}]})]
    assert erased.removed == {"spans": 3, "scores": 3, "log_records": 1, "span_contents": 0}
    assert erased.changed == {"drift_results": 1, "incidents": 1}


def test_what_was_removed_is_in_the_audit_log(store: Store) -> None:
    world(store)
    erased = erase(store.database, "me", moment(START), "local")
    [(actor, action, what, details)] = store.sql("SELECT actor, action, object, details FROM audit_log")
    assert (actor, action, what) == ("local", "erase", "user:me")
    assert json.loads(details) == {"removed": erased.removed, "changed": erased.changed}


def test_unknown_person_removes_nothing(store: Store) -> None:
    world(store)
    erased = erase(store.database, "nobody", moment(START), "local")
    assert (set(erased.removed.values()), set(erased.changed.values())) == ({0}, {0})
    assert len(left(store, "span_id", "spans")) == 5


def test_ingest_goes_on_after_an_erasure_and_restart(store: Store) -> None:
    world(store)
    erase(store.database, "me", moment(START), "local")
    store.put("spans", span("new", trace=MINE, user_id="you"))
    store.reopen()
    assert left(store, "span_id", "spans") == ["new", "your turn", "yours"]


def test_every_table_that_names_traces_or_users_is_looked_through(store: Store) -> None:
    named = store.sql(
        "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() USING (table_name)"
        " WHERE column_name IN ('trace_id', 'user_id') ORDER BY 1"
    )
    assert {name for (name,) in named} == {"spans", *BY_TRACE}
