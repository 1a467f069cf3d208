"""Scores stored requests by policy, each exactly once per evaluator and version, and goes on after a crash.

Two readers go through the requests in the order of commit, each with a cursor of its own in the store: `evals` with
the evaluators that score at once, `evals.judge` with those that ask somebody else, so that a slow judge holds up
nobody.  The cursor moves in the transaction that stores the scores.  What a crash makes a reader do again has the same
`score_id`, which the store takes once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry import trace
from prometheus_client import Gauge

from catalog.clock import Clock
from catalog.instruments import Instruments
from evals import registry, sampling
from evals.asking import Asking, Chosen
from evals.evaluator import Score, Status, evaluate, failed
from evals.judge.client import TRACER, JudgeClient
from evals.labels import Labels
from evals.registry import Configured
from evals.samples import COLUMNS, sample
from evals.scores import online_id, online_row, score_table
from evals.settings import WHERE, EvalSettings
from store.batch import Batch
from store.reads import Reads
from store.tables import TIME
from store.writer import Writer

T = TypeVar("T")
CURSOR, JUDGE_CURSOR = "evals", "evals.judge"
# What has to be known to choose; content is looked at of chosen requests only.
CHOOSING = ["trace_id", "span_id", "scope", "status", "response_model", "request_model", *set(WHERE) - {"model"}]
CHUNK = 500
# Scoring so many takes tens of milliseconds, in which everybody else has to wait for turns.
STRETCH = 100
# No read, no chunk and no commit takes so long unless something hangs.
DEADLINE_SECONDS = 120.0
SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True)
class StepReport:
    """What a round did: requests gone through, scores by status, and when to go on if the judge's budget is spent."""

    requests: int = 0
    scored: int = 0
    not_applicable: int = 0
    failed: int = 0
    deferred_until: float | None = None

    def plus(self, rows: Iterable[Mapping[str, Any]]) -> "StepReport":
        """This report with more scores in it."""
        counts = dict.fromkeys(Status, 0)
        for row in rows:
            counts[Status(row["status"])] += 1
        return replace(
            self,
            scored=self.scored + counts[Status.SCORED],
            not_applicable=self.not_applicable + counts[Status.NOT_APPLICABLE],
            failed=self.failed + counts[Status.FAILED],
        )


def judge_tokens_today(reads: Reads, clock: Clock) -> int:
    """Tokens that stored scores say the judge has used since midnight UTC."""
    midnight = datetime.fromtimestamp(clock.now(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int(reads.query("judge_tokens", since=midnight)[0]["tokens"])


class EvalRunner:
    """Goes through the stored requests.  One at a time per data directory."""

    def __init__(
        self,
        settings: EvalSettings,
        reads: Reads,
        writer: Writer,
        clock: Clock,
        metrics: Instruments,
        judge: JudgeClient | None = None,
        evaluators: Mapping[str, Configured] | None = None,
        under_load: Callable[[], bool] = lambda: False,
    ) -> None:
        """`judge` is closed by whoever made it; `evaluators`, by name, take the place of those that the policies name.

        `under_load` says whether requests are coming in, which go before scoring.

        Raises ValueError if a policy asks for a judge and there is none.
        """
        self._settings = settings
        self._reads = reads
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._labels = Labels(metrics)
        self._tracer = trace.get_tracer("tidegauge.evals")
        self._under_load = under_load
        self._policies = settings.effective_policies()
        self._evaluators = dict(configured(settings, judge) if evaluators is None else evaluators)
        self._asks = any(evaluator.asks for evaluator in self._evaluators.values())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evals")
        self._judge_thread = ThreadPoolExecutor(1, thread_name_prefix="evals-judge")

    @property
    def evaluators(self) -> Sequence[Configured]:
        """The evaluators in use."""
        return tuple(self._evaluators.values())

    async def run(self) -> None:
        """Works until cancelled; an error costs a round, not the runner."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._loop("evals", self.step))
                if self._asks:
                    group.create_task(self._loop("evals_judge", self.step_judge))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHUTDOWN_SECONDS):
                    await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Stops the worker threads and waits for what they are at, so that the store can be closed after it.

        May be called twice.
        """
        for thread in (self._thread, self._judge_thread):
            thread.shutdown(cancel_futures=True)

    async def _loop(self, name: str, step: Callable[[], Any]) -> None:
        while True:
            wait = self._settings.interval_seconds
            try:
                report = await step()
                if report.deferred_until is not None:
                    wait = max(wait, min(report.deferred_until - self._clock.now(), 60.0))
            except Exception:
                self._metrics.counters.tidegauge_loop_errors_total.labels(loop=name).inc()
            await self._clock.sleep(wait)

    async def step(self, settled_before: float | None = None) -> StepReport:
        """Scores everything that is stored and settled with the evaluators that score at once.

        Settled is what was committed before `settled_before`, by default the configured delay ago.
        """
        settled, backlog = self._settled(settled_before), self._metrics.gauges.tidegauge_eval_backlog
        report = StepReport()
        while (page := await self._page(self._thread, CURSOR, settled, backlog)).num_rows:
            with self._tracer.start_as_current_span("evaluate", attributes={"tidegauge.requests": page.num_rows}):
                report = await self._evaluate(page, report)
        return report

    async def _evaluate(self, page: pa.Table, report: StepReport) -> StepReport:
        """Scores the page with the evaluators that score at once, and moves the cursor past it."""
        # Nobody who sets up a judge wants it to begin with last month's requests; `backfill` is there for that.
        cursors = [CURSOR] if self._asks else [CURSOR, JUDGE_CURSOR]
        # A page is whole commits, and may be far longer than asked for.
        for start in range(0, page.num_rows, CHUNK):
            chosen = await _in(self._thread, partial(self._choose, page.slice(start, CHUNK), False))
            rows = []
            for first in range(0, len(chosen), STRETCH):
                began = perf_counter()
                rows += await _in(self._thread, partial(self._score, chosen[first : first + STRETCH]))
                await self._rest(perf_counter() - began)
            last = start + CHUNK >= page.num_rows
            await self._store(rows, dict.fromkeys(cursors, _last(page)) if last else {})
            report = report.plus(rows)
        return replace(report, requests=report.requests + page.num_rows)

    async def _rest(self, worked: float) -> None:
        """Leaves the processor to what comes in, in proportion to the time that was worked."""
        if self._under_load():
            await self._clock.sleep(worked * (1 / self._settings.share_under_load - 1))

    async def step_judge(self, settled_before: float | None = None) -> StepReport:
        """Scores everything that is stored and settled with the evaluators that ask somebody else.

        Ends early where the budget of the day is spent; `deferred_until` then says when it pays to try again.
        """
        settled, backlog = self._settled(settled_before), self._metrics.gauges.tidegauge_judge_backlog
        report = StepReport()
        if not self._asks:
            return report
        while (page := await self._page(self._judge_thread, JUDGE_CURSOR, settled, backlog)).num_rows:
            report = await self._ask(page, report)
            if report.deferred_until is not None:
                return report
            await self._store([], {JUDGE_CURSOR: _last(page)})
            report = replace(report, requests=report.requests + page.num_rows)
        return report

    async def backfill(self, since: float) -> StepReport:
        """Scores what ended since then (unix seconds) and has no score by the evaluators as they are now.

        Gives scores to older requests after a change of policies, parameters or versions; the cursors stay.
        """
        report, after, settled = StepReport(), 0, self._settled(None)
        start = pa.scalar(datetime.fromtimestamp(since, UTC), TIME)
        while True:
            read = partial(self._reads.pending_requests, after_seq=after, settled_before=settled)
            page = await _in(self._thread, partial(read, limit=self._settings.batch))
            if page.num_rows == 0:
                return report
            after = _last(page)
            page = page.filter(pc.greater_equal(page.column("end_time"), start))
            for first in range(0, page.num_rows, CHUNK):
                unscored = await _in(self._thread, partial(self._unscored, page.slice(first, CHUNK), False))
                rows = await _in(self._thread, partial(self._score, unscored))
                await self._store(rows, {})
                report = report.plus(rows)
            report = await self._ask(page, replace(report, requests=report.requests + page.num_rows))
            if report.deferred_until is not None:
                return report

    async def _ask(self, page: pa.Table, report: StepReport) -> StepReport:
        """Scores the page with the evaluators that ask somebody else, storing as the answers come."""
        chosen = await _in(self._judge_thread, partial(self._unscored, page, True))
        asking = Asking(self._clock, self._settings.judge)
        async with contextlib.aclosing(asking.answers(chosen)) as groups:
            async for rows in groups:
                await self._store(rows, {})
                report = report.plus(rows)
        return replace(report, deferred_until=asking.deferred_until)

    def _settled(self, given: float | None) -> float:
        return self._clock.now() - self._settings.settle_seconds if given is None else given

    async def _page(self, thread: Executor, cursor: str, settled: float, backlog: Gauge) -> pa.Table:
        """The requests after the stored position: whole commits, at least one if there is any."""

        def read() -> pa.Table:
            after = self._reads.cursor(cursor)
            backlog.set(self._reads.pending_count(after_seq=after))
            return self._reads.pending_requests(after_seq=after, settled_before=settled, limit=self._settings.batch)

        return await _in(thread, read)

    def _choose(self, page: pa.Table, asks: bool) -> list[Chosen]:
        """Requests of the page that one of the evaluators, asking or not, is to score."""
        taken: dict[int, list[tuple[Configured, float]]] = {}
        for index, row in enumerate(page.select(CHOOSING).to_pylist()):
            # The judge's own calls, received back, would be judged, and so on for ever.
            if row["scope"] == TRACER:
                continue
            chosen = sampling.chosen(self._policies, row)
            known = [(self._evaluators[name], chosen[name]) for name in chosen if name in self._evaluators]
            evaluators = [(evaluator, chance) for evaluator, chance in known if evaluator.asks is asks]
            if evaluators:
                taken[index] = evaluators
        rows = page.select(COLUMNS).take(pa.array(list(taken), pa.int64())).to_pylist()
        return [Chosen(row, evaluators) for row, evaluators in zip(rows, taken.values(), strict=True)]

    def _score(self, chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
        now = self._clock.now()
        rows = []
        for each in chosen:
            pairs = zip(each.evaluators, _scores(each), strict=True)
            rows += [online_row(each.row, evaluator, score, chance, now) for (evaluator, chance), score in pairs]
        return rows

    def _unscored(self, page: pa.Table, asks: bool) -> list[Chosen]:
        """What is to be scored of the page and has no score from before a crash, a spent budget or a backfill."""
        chosen = self._choose(page, asks)
        ids = [online_id(each.row, evaluator) for each in chosen for evaluator, _ in each.evaluators]
        times = pc.min_max(page["end_time"]).as_py()
        found = self._reads.query("scored_ids", ids=ids, first=times["min"], last=times["max"]) if ids else ()
        known = {row["score_id"] for row in found}
        left = []
        for each in chosen:
            evaluators = [pair for pair in each.evaluators if online_id(each.row, pair[0]) not in known]
            if evaluators:
                left.append(Chosen(each.row, evaluators))
        return left

    async def _store(self, rows: Sequence[Mapping[str, Any]], cursors: Mapping[str, int]) -> None:
        """Stores the rows and the cursors in one transaction, then counts them."""
        tables = {"scores": await _in(self._thread, partial(score_table, rows))} if rows else {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.wrap_future(self._writer.submit(Batch(tables, cursors)))
        for row in rows:
            self._count(row)

    def _count(self, row: Mapping[str, Any]) -> None:
        counters, histograms = self._metrics.counters, self._metrics.histograms
        evaluator = row["evaluator"]
        counters.tidegauge_evals_total.labels(evaluator=evaluator, status=row["status"]).inc()
        if row["value"] is not None:
            model, tenant = self._labels.fold("model", row["request_model"]), self._labels.fold("tenant", row["tenant"])
            score = histograms.tidegauge_eval_score.labels(evaluator=evaluator, model=model, tenant=tenant)
            score.observe(row["value"])


def configured(settings: EvalSettings, judge: JudgeClient | None) -> dict[str, Configured]:
    """The evaluators that the policies ask for, by the names of their scores; the judge's only if there is one."""
    uses = {use.name: use for policy in settings.effective_policies() for use in policy.evaluators}
    made = {name: registry.configure(use.kind, use.parameters, client=judge) for name, use in uses.items()}
    if settings.judges and judge is None and any(evaluator.asks for evaluator in made.values()):
        raise ValueError("a policy asks for the judge, but the runner was given none")
    return {name: evaluator for name, evaluator in made.items() if judge is not None or not evaluator.asks}


def _scores(chosen: Chosen) -> list[Score]:
    """One score an evaluator; a request that cannot be read is a failed score of each, and holds up nobody."""
    try:
        found = sample(chosen.row)
    except Exception as error:
        return [failed(type(error).__name__) for _ in chosen.evaluators]
    return [evaluate(evaluator, found) for evaluator, _ in chosen.evaluators]


def _last(page: pa.Table) -> int:
    return int(page.column("commit_seq")[-1].as_py())


async def _in(thread: Executor, call: Callable[[], T]) -> T:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await asyncio.get_running_loop().run_in_executor(thread, call)
