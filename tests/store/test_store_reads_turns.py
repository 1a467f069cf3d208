"""Reads that wait for one another, and questions that the store has no room for."""

import threading

import pyarrow as pa
import pytest

from store.reads import ALL, ReadRefused, Reads, asked
from store.reads_pages import Pages
from store.scope import EVERYTHING, Selection
from tests.store_kit import Store, span


class Held:
    """A read that goes on until it is let go."""

    def __init__(self, reads: Reads, *, heavy: bool) -> None:
        self.under_way, self.go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: reads._ask(self._wait, heavy=heavy))
        self._thread.start()
        assert self.under_way.wait(20)

    def _wait(self, _: object) -> pa.Table:
        self.under_way.set()
        self.go_on.wait(20)
        return pa.table({})

    def let_go(self) -> None:
        self.go_on.set()
        self._thread.join(20)


def test_heavy_reads_wait_for_one_another_and_light_ones_do_not(store: Store) -> None:
    store.put("spans", span("a"))
    reads = Reads(store.database, wait_seconds=0.05)
    held = Held(reads, heavy=True)
    try:
        assert len(Pages(reads).requests(EVERYTHING, Selection())) == 1
        with pytest.raises(ReadRefused, match="Too many questions"):
            Pages(reads).usage(EVERYTHING, Selection(), [])
    finally:
        held.let_go()
    assert Pages(reads).usage(EVERYTHING, Selection(), [])[0]["requests"] == 1


def test_no_more_reads_than_a_few_run_at_once(store: Store) -> None:
    reads = Reads(store.database, wait_seconds=0.05)
    held = [Held(reads, heavy=False) for _ in range(ALL)]
    try:
        with pytest.raises(ReadRefused, match="Too many questions"):
            reads.cursor("evals")
    finally:
        for each in held:
            each.let_go()
    assert reads.cursor("evals") == 0


def test_question_that_memory_cannot_hold_is_refused_and_others_are_answered(store: Store) -> None:
    store.sql("SET memory_limit = '60MB'")
    store.sql("SET max_temp_directory_size = '1MB'")
    with pytest.raises(ReadRefused, match="ask for a shorter time"):
        store.reads.together(lambda connection: asked(connection, "SELECT list(i) FROM range(50_000_000) t(i)", {}))
    assert store.reads.cursor("evals") == 0
