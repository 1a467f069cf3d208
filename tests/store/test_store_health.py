"""A disk in trouble: what is taken, what is refused, and what is there afterwards."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.database import Database, StoreCorrupt, StoreUnreadable, StoreUnusable
from store.health import RETRY_SECONDS, Trouble
from store.scope import EVERYTHING
from store.writer import StoreUnavailable
from tests.store_kit import Store, span

MIB = 1024**2
# DuckDB's file: three headers, then blocks.
FIRST_BLOCK, BLOCK = 3 * 4096, 262_144


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows past `size`: to DuckDB a full disk, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(store: Store, name: str, batches: int = 100) -> tuple[set[str], list[dict[str, object]], str]:
    """Puts batches until one is refused: the acknowledged ids, the refused rows, and why."""
    acknowledged: set[str] = set()
    for number in range(batches):
        rows = [span(f"{name}-{number}-{index}", input_messages=os.urandom(2000).hex()) for index in range(100)]
        try:
            store.put("spans", *rows)
        except StoreUnavailable as error:
            return acknowledged, rows, str(error)
        acknowledged |= {str(row["span_id"]) for row in rows}
    raise AssertionError("nothing was refused")


def again(store: Store, rows: list[dict[str, object]]) -> None:
    """Sends what was refused until it is taken, as exporters do."""
    until = time.monotonic() + 10 * RETRY_SECONDS
    while True:
        try:
            store.put("spans", *rows)
            return
        except StoreUnavailable:
            assert time.monotonic() < until
            time.sleep(0.05)


def stored(store: Store) -> list[str]:
    return [span_id for (span_id,) in store.sql("SELECT span_id FROM spans ORDER BY span_id")]


def test_full_disk_under_the_log_refuses_and_goes_on_when_there_is_room(open_store: Callable[..., Store]) -> None:
    store = open_store(min_free_bytes=0)
    with files_end_at(3 * MIB):
        acknowledged, refused, why = fill(store, "a")
        assert "is full" in why
        assert [problem.trouble for problem in store.database.health.problems()] == [Trouble.DISK_FULL]
        assert stored(store) == sorted(acknowledged)
    again(store, refused)
    assert store.database.health.problems() == []
    assert stored(store) == sorted(acknowledged | {str(row["span_id"]) for row in refused})


def test_full_disk_under_a_checkpoint_loses_and_doubles_nothing(open_store: Callable[..., Store]) -> None:
    store = open_store(min_free_bytes=0, checkpoint_threshold="2MB")
    with files_end_at(4 * MIB):
        acknowledged, refused, _ = fill(store, "a")
        assert set(stored(store)) >= acknowledged
    assert store.database.generation == 1, "DuckDB did not give up; the test proves nothing"
    again(store, refused)
    everything = acknowledged | {str(row["span_id"]) for row in refused}
    assert stored(store) == sorted(everything)
    store.reopen()
    assert stored(store) == sorted(everything)


def test_readers_go_on_over_a_database_opened_anew(open_store: Callable[..., Store]) -> None:
    store = open_store(min_free_bytes=0, checkpoint_threshold="2MB")
    store.put("spans", span("first"))
    ended, counts, errors = threading.Event(), list[int](), list[Exception]()

    def read() -> None:
        while not ended.is_set():
            try:
                counts.append(store.reads.pending_count(after_seq=0))
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    with files_end_at(4 * MIB):
        fill(store, "a")
    again(store, [span("last")])
    seen = len(counts)
    ended.set()
    for reader in readers:
        reader.join()
    assert store.database.generation >= 1
    assert (errors, seen > 0) == ([], True)


def test_reserve_is_refused_before_the_disk_is_full(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    store.put("spans", span("a"))
    store.close()
    store = open_store(min_free_bytes=2**60)
    with pytest.raises(StoreUnavailable, match=r"MiB are free .* kept in reserve \(store\.min_free_bytes"):
        store.put("spans", span("b"))
    assert stored(store) == ["a"]


def crash_with_rows_in_the_log(directory: Path) -> None:
    """A data directory as `kill -9` leaves it: two rows, one of them in the write-ahead log alone."""
    program = (
        "import os, sys; from pathlib import Path; from store.database import Database\n"
        "cursor = Database(Path(sys.argv[1])).cursor()\n"
        "cursor.execute(\"INSERT INTO cursors VALUES ('a', 1)\"); cursor.execute('CHECKPOINT')\n"
        "cursor.execute(\"INSERT INTO cursors SELECT 'b' || range, 2 FROM range(1000)\"); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True, timeout=60)


DAMAGES = {
    "start of the file": ("tidegauge.duckdb", 8),
    "headers": ("tidegauge.duckdb", 4096 + 300),
    "start of the log": ("tidegauge.duckdb.wal", 0),
    "checkpoint that the log follows": ("tidegauge.duckdb.wal", 10),
    "middle of the log": ("tidegauge.duckdb.wal", 300),
}


@pytest.mark.parametrize(("name", "place"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_told_and_left_as_it_is(tmp_path: Path, name: str, place: int) -> None:
    crash_with_rows_in_the_log(tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.seek(place)
        file.write(b"\xa5" * 40)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("tidegauge.duckdb*")}
    with pytest.raises(StoreCorrupt, match=r"is damaged.*\n.*tidegauge restore BACKUP --data NEW_DIRECTORY"):
        Database(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("tidegauge.duckdb*")} == before


def test_log_that_a_crash_cut_off_is_no_damage(tmp_path: Path) -> None:
    crash_with_rows_in_the_log(tmp_path)
    log = tmp_path / "tidegauge.duckdb.wal"
    os.truncate(log, log.stat().st_size - 7)
    database = Database(tmp_path)
    assert database.cursor().execute("SELECT name FROM cursors").fetchall() == [("a",)]
    database.close()


def test_damaged_block_refuses_those_who_ask_for_it(open_store: Callable[..., Store]) -> None:
    store = open_store()
    store.put("spans", *(span(f"s{index}", input_messages=os.urandom(400).hex()) for index in range(2000)))
    store.sql("CHECKPOINT")
    [(block, *_), *_] = store.sql(
        "SELECT block_id FROM pragma_storage_info('spans') WHERE persistent GROUP BY block_id "
        "HAVING list(DISTINCT column_name) = ['input_messages'] ORDER BY block_id"
    )
    store.close()
    with (store.directory / "tidegauge.duckdb").open("r+b") as file:
        file.seek(FIRST_BLOCK + block * BLOCK + 5000)
        file.write(b"\xa5" * 40)
    store.clock.time += 3600  # what is older than the writer's windows is not read at the start
    store.reopen()
    with pytest.raises(StoreUnreadable, match="holds damaged blocks"):
        store.reads.trace(EVERYTHING, "t1")
    assert [problem.trouble for problem in store.database.health.problems()] == [Trouble.CORRUPT]
    assert store.put("spans", span("new")).rows == {"spans": 1}


def test_disk_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match=r"data: Not a directory"):
        Database(tmp_path / "file" / "data")
