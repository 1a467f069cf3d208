"""What is too old or too much goes, and its disk is given back or used again."""

import os
from typing import Any

import pyarrow as pa
import pytest

from store.batch import Batch
from store.retention import Freed, Retention, in_use
from store.settings import DAY, RetentionSettings
from tests.store_kit import START, Store, as_table, span

HOUR = 3600.0
MIB = 1024**2


def retain(store: Store, **settings: object) -> Freed:
    retention = Retention(store.database, store.clock, store.metrics, RetentionSettings.model_validate(settings))
    return retention.step()


def at(store: Store, hours: float) -> None:
    store.clock.time = START + hours * HOUR


def fill(store: Store, name: str, rows: int, **columns: Any) -> None:
    """Spans of 1.5 KB that nothing compresses, folded into row groups of their own."""
    for first in range(0, rows, 500):
        store.put(
            "spans",
            *(
                span(f"{name}{index}", trace=f"{name}{index}", input_messages=os.urandom(750).hex(), **columns)
                for index in range(first, min(first + 500, rows))
            ),
        )
    store.sql("CHECKPOINT")


def ticks(store: Store, count: int) -> None:
    """One tick a second from the clock's time on."""
    now = store.clock.now()
    times = pa.array([int((now + tick) * 1e6) for tick in range(count)], pa.timestamp("us", tz="UTC"))
    target = pa.array([f"t{tick}" for tick in range(count)])
    store.writer.submit(Batch({"engine_state": pa.table({"time": times, "target": target})})).result(20)


def rows_of(number: int) -> pa.Table:
    return as_table("spans", [span(f"n{number}-{index}") for index in range(100)])


def names(store: Store) -> set[str]:
    return {span_id.rstrip("0123456789") for (span_id,) in store.sql("SELECT DISTINCT span_id FROM spans")}


def test_rows_go_when_their_time_is_over(store: Store) -> None:
    store.put("spans", span("old"))
    store.put("scores", {"score_id": "old"})
    at(store, 25)
    store.put("spans", span("new"))
    assert retain(store, spans="1d", scores="30d").rows == {("spans", "age"): 1}
    assert store.sql("SELECT span_id FROM spans") == [("new",)]
    assert store.sql("SELECT score_id FROM scores") == [("old",)]


def test_every_table_has_its_time(store: Store) -> None:
    at(store, 0)
    store.put("incidents", {"incident_id": "i", "received_at": None})
    ticks(store, 3)
    at(store, 24 * 8)
    assert retain(store).rows == {}
    assert retain(store, engine_state="7d").rows == {("engine_state", "age"): 3}


def test_nothing_goes_where_the_time_is_null(store: Store) -> None:
    store.put("spans", span("old"))
    at(store, 24 * 5000)
    assert retain(store, spans=None).rows == {}


def test_a_tenant_has_shorter_times_of_its_own(store: Store) -> None:
    store.put("spans", span("a", tenant="acme"), span("b", tenant="other"), span("c"))
    at(store, 24 * 4)
    assert retain(store, tenants={"acme": {"spans": "3d"}}).rows == {("spans", "age"): 1}
    assert names(store) == {"b", "c"}


def test_more_rows_than_one_piece_holds_go_in_one_round(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.retention.PIECE_ROWS", 100)
    ticks(store, 2_050)
    at(store, 24 * 30)
    assert retain(store).rows == {("engine_state", "age"): 2_050}
    assert (
        store.metrics.registry.get_sample_value(
            "tidegauge_store_deleted_rows_total", {"table": "engine_state", "reason": "age"}
        )
        == 2_050
    )


def test_blocks_of_what_went_are_used_again_and_the_file_does_not_grow(store: Store) -> None:
    fill(store, "a", 4_000)
    fill(store, "b", 4_000)
    full = store.database.path.stat().st_size
    at(store, 24 * 10)
    fill(store, "c", 10)
    freed = retain(store, spans="9d")
    assert freed.rows == {("spans", "age"): 8_000}
    assert freed.after < freed.before / 5
    fill(store, "d", 4_000)
    fill(store, "e", 3_000)
    assert names(store) == {"c", "d", "e"}
    assert store.database.path.stat().st_size < full * 1.1


def test_file_shrinks_by_what_went_at_its_end(store: Store) -> None:
    fill(store, "a", 500)
    fill(store, "b", 8_000, tenant="acme")
    full = store.database.path.stat().st_size
    at(store, 24)
    retain(store, tenants={"acme": {"spans": "1h"}})
    store.sql("CHECKPOINT")
    assert names(store) == {"a"}
    assert store.database.path.stat().st_size < full / 3


def test_row_group_that_a_tenant_shared_is_rewritten_when_little_is_left(store: Store) -> None:
    for number in range(8):
        rows = [
            span(f"{number}-{index}", tenant="acme" if index % 10 else "other", input_messages=os.urandom(750).hex())
            for index in range(500)
        ]
        store.put("spans", *rows)
    store.sql("CHECKPOINT")
    at(store, 24)
    fill(store, "new", 10)
    before = store.sql("SELECT spans::VARCHAR FROM spans WHERE tenant = 'other' ORDER BY span_id")
    freed = retain(store, tenants={"acme": {"spans": "1h"}})
    assert freed.after < freed.before / 2
    assert store.sql("SELECT spans::VARCHAR FROM spans WHERE tenant = 'other' ORDER BY span_id") == before
    assert store.sql("SELECT count(*) FROM spans") == [(400 + 10,)]


def test_oldest_go_first_where_the_database_has_a_bound(store: Store) -> None:
    for hour in range(10):
        at(store, hour)
        fill(store, f"h{hour}-", 1_000)
    at(store, 12)
    size = in_use(store.database.cursor())
    freed = retain(store, max_bytes=size)
    kept = sorted(store.sql("SELECT DISTINCT split_part(span_id, '-', 1) FROM spans"))
    assert freed.after <= size * 0.9
    assert kept == [(f"h{hour}",) for hour in range(10 - len(kept), 10)]
    assert 5 <= len(kept) <= 9


def test_bound_that_cannot_be_held_leaves_the_last_hour(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    at(store, 0)
    fill(store, "old", 1_000)
    at(store, 10)
    fill(store, "now", 1_000)
    retain(store, max_bytes=1 * MIB)
    assert names(store) == {"now"}
    assert "retention_cannot_hold_size" in caplog.messages


def test_ingest_goes_on_while_rows_go(store: Store) -> None:
    fill(store, "a", 2_000)
    at(store, 24 * 30)
    reader = store.database.cursor()
    reader.begin()
    assert reader.execute("SELECT count(*) FROM spans").fetchall() == [(2_000,)]
    futures = [store.writer.submit(Batch({"spans": rows_of(number)})) for number in range(20)]
    assert retain(store).rows == {("spans", "age"): 2_000}
    assert sum(future.result(20).rows["spans"] for future in futures) == 2_000
    assert reader.execute("SELECT count(*) FROM spans").fetchall() == [(2_000,)]
    reader.rollback()
    assert store.sql("SELECT count(*) FROM spans") == [(2_000,)]


def test_defaults_keep_two_weeks_of_spans() -> None:
    assert (RetentionSettings().spans, RetentionSettings().max_bytes) == (14 * DAY, None)
