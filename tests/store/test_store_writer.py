"""An acknowledgement comes after the commit, and nothing is stored twice."""

from collections.abc import Callable
from concurrent.futures import wait

import pyarrow as pa
import pytest

from store.batch import Batch
from store.writer import StoreOverloaded, StoreUnavailable
from tests.store_kit import START, Store, as_table, span


def score(score_id: str, **columns: object) -> dict[str, object]:
    return {"score_id": score_id, "evaluator": "e", "value": 1.0, "status": "scored", **columns}


def test_span_sent_again_is_stored_once(store: Store) -> None:
    first = store.put("spans", span("a"), span("b"), span("a"))
    again = store.put("spans", span("b"), span("c"))
    assert (first.rows, first.duplicates) == ({"spans": 2}, {"spans": 1})
    assert (again.rows, again.duplicates) == ({"spans": 1}, {"spans": 1})
    assert store.sql("SELECT span_id FROM spans ORDER BY span_id") == [("a",), ("b",), ("c",)]


def test_span_sent_again_after_a_restart_is_stored_once(store: Store) -> None:
    store.put("spans", span("a"))
    store.reopen()
    assert store.put("spans", span("a")).duplicates == {"spans": 1}


def test_window_of_known_spans_is_bounded(open_store: Callable[..., Store]) -> None:
    store = open_store(duplicate_window_spans=1000)
    store.put("spans", *(span(f"s{index}") for index in range(1500)))
    assert store.put("spans", span("s1499")).duplicates == {"spans": 1}
    assert store.put("spans", span("s0")).duplicates == {"spans": 0}


def test_score_is_stored_once_however_often_it_is_sent(store: Store) -> None:
    assert store.put("scores", score("x"), score("x"), score("y")).rows == {"scores": 2}
    store.reopen()
    assert store.put("scores", score("x", value=0.0)).duplicates == {"scores": 1}
    assert store.sql("SELECT score_id, value FROM scores ORDER BY score_id") == [("x", 1.0), ("y", 1.0)]


def test_cursor_moves_with_the_rows_it_stands_for(store: Store) -> None:
    store.put("scores", score("x"), evals=7)
    store.reopen()
    assert store.reads.cursor("evals") == 7
    assert store.reads.cursor("unheard-of") == 0


def test_incident_is_replaced_when_it_resolves(store: Store) -> None:
    store.put("incidents", {"incident_id": "i", "status": "firing"})
    store.put("incidents", {"incident_id": "i", "status": "resolved"})
    assert store.sql("SELECT status FROM incidents") == [("resolved",)]


def test_commit_numbers_grow_over_restarts(store: Store) -> None:
    first = store.put("spans", span("a")).seq
    store.reopen()
    assert store.put("spans", span("b")).seq == first + 1


def test_rows_say_when_they_were_committed(store: Store) -> None:
    store.clock.time = START + 5
    store.put("spans", span("a"))
    assert store.sql("SELECT epoch(committed_at) FROM spans") == [(START + 5,)]


def test_unknown_column_is_refused_by_name(store: Store) -> None:
    with pytest.raises(ValueError, match="table spans has no column colour"):
        store.writer.submit(Batch({"spans": pa.table({"colour": ["red"]})}))


def test_unknown_table_is_refused_by_name(store: Store) -> None:
    with pytest.raises(ValueError, match="there is no table 'spams'"):
        store.writer.submit(Batch({"spams": pa.table({"a": [1]})}))


def test_value_of_the_wrong_type_is_refused_by_name(store: Store) -> None:
    with pytest.raises(ValueError, match=r"spans\.duration_s takes double"):
        store.writer.submit(Batch({"spans": pa.table({"duration_s": ["soon"]})}))


def test_one_bad_submission_does_not_take_its_neighbours_along(store: Store) -> None:
    bad = as_table("scores", [{"score_id": None, "evaluator": "e"}])  # the primary key refuses it
    futures = [store.writer.submit(Batch({"spans": as_table("spans", [span(f"s{index}")])})) for index in range(20)]
    futures.insert(10, store.writer.submit(Batch({"scores": bad})))
    futures += [store.writer.submit(Batch({"spans": as_table("spans", [span("last")])}))]
    wait(futures, timeout=20)
    failed = [future for future in futures if future.exception() is not None]
    assert [type(future.exception()) for future in failed] == [StoreUnavailable]
    assert store.sql("SELECT count(*), count(DISTINCT request_id) FROM spans") == [(21, 21)]


def test_retry_of_a_failed_submission_is_no_duplicate(store: Store) -> None:
    bad = Batch(
        {
            "spans": as_table("spans", [span("a")]),
            "scores": as_table("scores", [{"score_id": None, "evaluator": "e"}]),
        }
    )
    with pytest.raises(StoreUnavailable, match="commit failed"):
        store.writer.submit(bad).result(timeout=20)
    assert store.put("spans", span("a")).rows == {"spans": 1}
    assert store.sql("SELECT count(*) FROM requests") == [(1,)]


def test_full_queue_refuses_at_once(open_store: Callable[..., Store]) -> None:
    store = open_store(queue_batches=2)
    batch = Batch({"spans": as_table("spans", [span(f"s{index}") for index in range(3000)])})

    def flood() -> None:
        for _ in range(200):
            store.writer.submit(batch)

    with pytest.raises(StoreOverloaded, match="2 batches wait for the disk"):
        flood()


def test_closed_store_refuses_and_may_be_closed_again(store: Store) -> None:
    future = store.writer.submit(Batch({"spans": as_table("spans", [span("a")])}))
    store.writer.close()
    store.writer.close()
    assert future.result(timeout=1).rows == {"spans": 1}
    with pytest.raises(StoreUnavailable, match="closed"):
        store.writer.submit(Batch())
