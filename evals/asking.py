"""Has many samples scored by evaluators that ask somebody else, a bounded number at a time."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.clock import Clock
from evals.evaluator import NOT_APPLICABLE, Deferred, Score, applies, checked, failed
from evals.registry import Configured
from evals.samples import sample
from evals.scores import online_row
from evals.settings import JudgeSettings

Task = tuple[Mapping[str, Any], Configured, float]
DEFAULT_IN_FLIGHT = 4
DAY = 86_400.0


@dataclass(frozen=True)
class Chosen:
    """A request with the evaluators that score it, each with the probability that it would be chosen for it."""

    row: Mapping[str, Any]
    evaluators: Sequence[tuple[Configured, float]]


class Asking:
    """Asks, and gives the scores in groups as they come."""

    def __init__(self, clock: Clock, judge: JudgeSettings | None) -> None:
        self._clock = clock
        self._in_flight = judge.concurrency if judge else DEFAULT_IN_FLIGHT
        self._max_delay = judge.max_delay_seconds if judge else DAY
        self._prices = (
            (judge.usd_per_million_input_tokens, judge.usd_per_million_output_tokens) if judge else (None, None)
        )
        self.deferred_until: float | None = None

    async def answers(self, chosen: Sequence[Chosen]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Rows of scores, in groups, as they come.

        Asks nobody anew once the budget is spent: `deferred_until` says until when, and the rest is left out.
        """
        self.deferred_until = None
        todo = iter([(each.row, evaluator, chance) for each in chosen for evaluator, chance in each.evaluators])
        running: set[asyncio.Task[dict[str, Any] | None]] = set()
        try:
            while self._fill(running, todo):
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                rows = [row for task in done if (row := task.result()) is not None]
                if rows:
                    yield rows
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _fill(self, running: "set[asyncio.Task[dict[str, Any] | None]]", todo: Iterator[Task]) -> bool:
        """Starts what may be started; whether anything runs."""
        while self.deferred_until is None and len(running) < self._in_flight:
            task = next(todo, None)
            if task is None:
                break
            running.add(asyncio.ensure_future(self._row(*task)))
        return bool(running)

    async def _row(self, row: Mapping[str, Any], evaluator: Configured, chance: float) -> dict[str, Any] | None:
        """The score's row; None if it has to wait for another day's budget."""
        try:
            score = await self._score(row, evaluator)
        except Deferred as deferred:
            ended = row.get("end_time")
            if ended is None or self._clock.now() - ended.timestamp() <= self._max_delay:
                self.deferred_until = deferred.until
                return None
            score = failed("budget_exhausted", f"no budget within {self._max_delay:g} s", attempts=0)
        return online_row(row, evaluator, score, chance, self._clock.now(), self._cost(score))

    async def _score(self, row: Mapping[str, Any], evaluator: Configured) -> Score:
        try:
            found = sample(row)
            if not applies(evaluator, found):
                return NOT_APPLICABLE
            return checked(evaluator, await evaluator.ask(found))
        except Deferred:
            raise
        except Exception as error:
            return failed(type(error).__name__)

    def _cost(self, score: Score) -> float | None:
        cheap, dear = self._prices
        if score.judge is None or cheap is None or dear is None:
            return None
        return (score.judge.input_tokens * cheap + score.judge.output_tokens * dear) / 1e6
