"""The one writer: many submissions, one transaction at a time, and an answer only after its commit."""

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from time import perf_counter

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry import trace

from catalog.clock import Clock
from catalog.instruments import Instruments
from store.batch import Batch, Committed, conform
from store.contents import ContentIntake
from store.database import Database, explained
from store.health import invalidated
from store.settings import StoreSettings
from store.spans import SpanIntake
from store.transaction import Inserts, Rows, write


class StoreOverloaded(Exception):
    """The writer's queue is full; try again shortly."""


class StoreUnavailable(Exception):
    """Nothing can be stored now: the store is closed, or its disk is full or read-only."""


@dataclass(slots=True)
class _Submission:
    batch: Batch
    tables: Mapping[str, pa.Table]
    future: "Future[Committed]"


LOG = logging.getLogger(__name__)
TRACER = trace.get_tracer("tidegauge.store")
OWN_SERVICE = pa.scalar("tidegauge")


def _only_own_spans(group: Sequence[_Submission]) -> bool:
    """Whether the commit is of Tidegauge's own spans alone; a span for it would be an echo without end."""
    return all(
        name == "spans"
        and pc.all(pc.equal(table.column("service"), OWN_SERVICE), skip_nulls=False, min_count=0).as_py()
        for submission in group
        for name, table in submission.tables.items()
    )


def _refuse(group: Sequence[_Submission], why: str) -> None:
    for submission in group:
        submission.future.set_exception(StoreUnavailable(why))


class Writer:
    """Takes batches from any thread and commits them in groups from one thread of its own."""

    def __init__(self, database: Database, clock: Clock, metrics: Instruments, settings: StoreSettings) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._queue: queue.Queue[_Submission | None] = queue.Queue(settings.queue_batches)
        self._closed = threading.Event()
        self._attach()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> "Future[Committed]":
        """Queues `batch`; the future resolves after its commit, or with StoreUnavailable.

        Raises ValueError for rows that fit no table, StoreOverloaded if the queue is full, StoreUnavailable if closed
        or if the disk takes nothing now.
        """
        if self._closed.is_set():
            raise StoreUnavailable("the store is closed")
        if (problem := self._database.health.problem()) is not None:
            raise StoreUnavailable(problem.message)
        tables = {name: conform(name, table) for name, table in batch.tables.items()}
        submission = _Submission(batch, tables, Future())
        try:
            self._queue.put_nowait(submission)
        except queue.Full:
            raise StoreOverloaded(f"{self._settings.queue_batches} batches wait for the disk") from None
        self._metrics.gauges.tidegauge_ingest_queue_batches.set(self._queue.qsize())
        return submission.future

    def close(self) -> None:
        """Commits what is queued, then stops; may be called twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._queue.put(None)
        self._thread.join()
        with suppress(duckdb.Error):
            self._connection.close()

    def _attach(self) -> None:
        """A connection to the database as it is open now, and what is known of its rows."""
        generation = self._database.generation
        self._connection = self._database.cursor()
        with explained(self._database.path):
            self._intake = SpanIntake(self._connection, self._settings, self._clock.now())
            self._contents = ContentIntake(self._connection, self._settings, self._metrics, self._clock.now())
            self._inserts = Inserts(self._connection)
            self._seq = self._last_seq()
        self._generation = generation

    def _run(self) -> None:
        while True:
            group, last = self._gather()
            if group:
                self._commit_group(group)
                self._fold()
            if last:
                self._refuse_rest()
                return

    def _gather(self) -> tuple[list[_Submission], bool]:
        """What is queued now, up to a bound; True if the writer is to stop after it."""
        group: list[_Submission] = []
        rows = 0
        item = self._queue.get()
        while item is not None:
            if item.future.set_running_or_notify_cancel():
                group.append(item)
                rows += item.batch.rows()
            if rows >= self._settings.max_commit_rows:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _refuse_rest(self) -> None:
        with suppress(queue.Empty):
            while (item := self._queue.get_nowait()) is not None:
                item.future.set_exception(StoreUnavailable("the store is closed"))

    def _commit_group(self, group: Sequence[_Submission]) -> None:
        self._metrics.gauges.tidegauge_ingest_queue_batches.set(self._queue.qsize())
        if (problem := self._database.health.problem()) is not None:
            _refuse(group, problem.message)
            return
        try:
            if self._generation != self._database.generation:
                self._attach()
            self._database.fold_by_room()
            with nullcontext() if _only_own_spans(group) else TRACER.start_as_current_span("commit") as span:
                results = self._commit(group)
                if span is not None:
                    span.set_attribute("tidegauge.rows", sum(submission.batch.rows() for submission in group))
        except Exception as error:
            self._metrics.counters.tidegauge_store_commits_total.labels(outcome="error").inc()
            self._failed(group, error)
            return
        for submission, result in zip(group, results, strict=True):
            submission.future.set_result(result)

    def _failed(self, group: Sequence[_Submission], error: Exception) -> None:
        """The disk's trouble is everybody's; any other may be one submission's.

        Where DuckDB gave up it is not known whether the group was committed.  It is refused: what is sent again is
        known by its ids.
        """
        problem = self._database.health.failed(error)
        if invalidated(error):
            self._revive()
        if problem is None:
            self._commit_singly(group, error)
        else:
            LOG.error("commit_failed", extra={"trouble": problem.trouble.value, "problem": problem.message})
            _refuse(group, problem.message)

    def _fold(self) -> None:
        """Folds the log when nobody waits for an answer."""
        try:
            seconds = self._database.fold()
        except duckdb.Error as error:
            LOG.exception("log_not_folded")
            self._database.health.failed(error)
            if invalidated(error):
                self._revive()
            return
        if seconds is not None:
            self._metrics.histograms.tidegauge_store_checkpoint_duration_seconds.observe(seconds)
            self._metrics.gauges.tidegauge_store_window_spans.set(len(self._intake.duplicates))
            self._metrics.gauges.tidegauge_store_window_bytes.set(self._intake.nbytes)

    def _revive(self) -> None:
        try:
            self._database.revive(self._generation)
            self._attach()
        except Exception as error:
            # The next commit finds the connection closed, and tries again.
            LOG.exception("store_not_reopened")
            self._database.health.failed(error)

    def _commit_singly(self, group: Sequence[_Submission], error: Exception) -> None:
        """One bad submission must not take its neighbours along."""
        if len(group) == 1:
            group[0].future.set_exception(StoreUnavailable(f"commit failed: {error}"))
            return
        for submission in group:
            self._commit_group([submission])

    def _commit(self, group: Sequence[_Submission]) -> list[Committed]:
        began = perf_counter()
        now = self._clock.now()
        seq = self._seq + 1
        connection = self._connection
        connection.begin()
        try:
            with self._intake.transaction(seq, now), self._contents.transaction():
                rows = Rows(connection, self._intake, self._contents, seq, now)
                results = rows.take([submission.tables for submission in group])
                committed = write(connection, self._inserts, rows, [submission.batch.cursors for submission in group])
                connection.commit()
        except BaseException:
            with suppress(duckdb.Error):
                connection.rollback()
            raise
        self._seq = seq
        self._count_safely(committed, began, now)
        return [Committed(stored, duplicates, seq) for stored, duplicates in results]

    def _count_safely(self, committed: Mapping[str, pa.Table], began: float, now: float) -> None:
        """Nothing after the commit may make it look as if it had failed."""
        try:
            self._count(committed, began, now)
        except Exception:
            LOG.exception("commit_not_counted")
            self._metrics.counters.tidegauge_loop_errors_total.labels(loop="store").inc()

    def _count(self, committed: Mapping[str, pa.Table], began: float, now: float) -> None:
        counters = self._metrics.counters
        counters.tidegauge_store_commits_total.labels(outcome="ok").inc()
        self._metrics.histograms.tidegauge_store_commit_duration_seconds.observe(perf_counter() - began)
        for name, table in committed.items():
            counters.tidegauge_store_rows_total.labels(table=name).inc(table.num_rows)
        spans = committed.get("spans")
        if spans is not None and spans.num_rows:
            newest = pc.max(spans["end_time"].cast(pa.int64())).as_py() or 0
            self._metrics.gauges.tidegauge_ingest_lag_seconds.set(max(now - newest / 1e6, 0.0))

    def _last_seq(self) -> int:
        row = self._connection.execute(
            "SELECT max(seq) FROM (SELECT max(commit_seq) AS seq FROM spans"
            " UNION ALL SELECT max(commit_seq) FROM scores UNION ALL SELECT max(commit_seq) FROM drift_results)"
        ).fetchone()
        return int(row[0]) if row and row[0] is not None else 0
