"""Asks the judge: retries, a budget, a bound on calls in flight; every outcome counted and traced."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from opentelemetry import trace

from catalog.clock import Clock
from catalog.instruments import Instruments
from evals.evaluator import Deferred, JudgeUse
from evals.judge.budget import TokenBudget
from evals.judge.transport import CallFailed, Completion, complete, estimate
from evals.settings import JudgeSettings

T = TypeVar("T")
TRACER = "tidegauge.evals.judge"
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
# An endpoint that wants to be left alone for longer than this gets its wish, and the score fails.
LONGEST_RETRY_AFTER = 300.0


class JudgeFailed(Exception):
    """The judge gave no verdict; `outcome` of the last call, how many calls there were, what they used."""

    def __init__(self, outcome: str, detail: str, attempts: int, use: JudgeUse) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.attempts = attempts
        self.use = use


@dataclass(frozen=True, slots=True)
class Asked:
    """Bounds on one question."""

    messages: Sequence[Mapping[str, str]]
    schema_name: str
    schema: Mapping[str, Any]
    evaluator: str


class JudgeClient:
    """A judge to ask.  Made once for all evaluators that judge, so that they share its budget and its bounds.

    `randomness` spreads the retries; `used_today` is what stored scores say was used since midnight UTC.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        clock: Clock,
        metrics: Instruments,
        randomness: random.Random,
        used_today: int = 0,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self.settings = settings
        self.budget = TokenBudget(settings.tokens_per_day, clock, used_today)
        self._clock = clock
        self._metrics = metrics
        self._random = randomness
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._settled = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._quiet_until = 0.0
        self._structured = settings.structured_output
        self._tracer = tracer or trace.get_tracer(TRACER)
        key = settings.key()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = settings.url.rstrip("/") + "/chat/completions"
        self._show_budget()

    async def close(self) -> None:
        """Closes the connections; may be called twice, or before the first call."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, asked: Asked, read: Callable[[Any], T]) -> tuple[T, JudgeUse, int]:
        """What `read` makes of the judge's answer, what that cost, and the number of calls it took.

        `read` raises ValueError for what it cannot accept.  Raises JudgeFailed after the last attempt, Deferred if
        the budget of today is spent.
        """
        use = JudgeUse(self.settings.model)
        # Given up for good only when it went well without: a prompt that is too long is refused with 400, too.
        structured = self._structured
        for attempt in range(1, self.settings.attempts + 1):
            try:
                async with self._slots:
                    await self._clock.sleep(self._quiet_until - self._clock.now())
                    completion, spent = await self._call(asked, attempt, structured)
                use = _add(use, spent, completion.model)
                answer = self._read(completion, read)
                self._structured = structured
                return answer, use, attempt
            except _Attempted as failure:
                use = _add(use, failure.spent, None)
                if structured and failure.cause.status == 400 and attempt < self.settings.attempts:
                    # Many servers refuse `response_format`, or this schema; the answer is held to it all the same.
                    structured = False
                elif not await self._may_retry(failure.cause, attempt):
                    raise JudgeFailed(failure.cause.outcome, str(failure.cause), attempt, use) from None
            except Deferred:
                if attempt > 1:
                    # What was paid for has to be recorded, and only a score does that.
                    raise JudgeFailed("budget_exhausted", "budget spent between attempts", attempt - 1, use) from None
                raise
        raise AssertionError("the last attempt either answers or raises")

    async def _may_retry(self, failure: CallFailed, attempt: int) -> bool:
        """Waits if the call may be tried again; False if it may not."""
        if not failure.retry or attempt >= self.settings.attempts:
            return False
        wait = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * self._random.uniform(0.5, 1.0)
        if failure.retry_after is not None:
            if failure.retry_after > LONGEST_RETRY_AFTER:
                return False
            # It is the endpoint that is busy, not this call: the others wait, too.
            self._quiet_until = max(self._quiet_until, self._clock.now() + failure.retry_after)
            wait += failure.retry_after
        await self._clock.sleep(wait)
        return True

    def _read(self, completion: Completion, read: Callable[[Any], T]) -> T:
        try:
            answer = read(completion.content)
        except ValueError as error:
            self._count("invalid_response")
            raise _Attempted(
                CallFailed("invalid_response", retry=True, charged=True, detail=str(error)), (0, 0)
            ) from None
        self._count("ok")
        return answer

    async def _call(self, asked: Asked, attempt: int, structured: bool) -> tuple[Completion, tuple[int, int]]:
        """One call within the budget; the completion and the (input, output) tokens charged."""
        expected = (estimate(asked.messages), self.settings.max_answer_tokens)
        reserved = sum(expected)
        while (day := self.budget.reserve(reserved)) is None and self.budget.may_fit_soon(reserved):
            self._settled.clear()
            await self._settled.wait()
        if day is None:
            self._count("budget_exhausted")
            if not self.budget.fits_a_day(reserved):
                failure = CallFailed(
                    "budget_exhausted", retry=False, charged=False, detail="larger than a day's budget"
                )
                raise _Attempted(failure, (0, 0))
            raise Deferred(self.budget.returns_at)
        # A call that is broken off may have been paid for.
        spent = expected
        try:
            completion = await self._traced(asked, attempt, structured)
            spent = _or(completion.input_tokens, expected[0]), _or(completion.output_tokens, expected[1])
        except CallFailed as failure:
            spent = expected if failure.charged else (0, 0)
            self._count(failure.outcome)
            raise _Attempted(failure, spent) from None
        finally:
            self.budget.settle(day, reserved, sum(spent))
            self._settled.set()
            self._spent(spent)
        return completion, spent

    async def _traced(self, asked: Asked, attempt: int, structured: bool) -> Completion:
        settings, address = self.settings, urlsplit(self._url)
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": settings.model,
            "gen_ai.request.temperature": settings.temperature,
            "gen_ai.request.max_tokens": settings.max_answer_tokens,
            "gen_ai.request.seed": settings.seed + attempt - 1,
            "gen_ai.evaluation.name": asked.evaluator,
            "server.address": address.hostname or "",
            "server.port": address.port or (443 if address.scheme == "https" else 80),
        }
        with self._tracer.start_as_current_span(
            f"chat {settings.model}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                body = self._body(asked, attempt, structured)
                limit, now = settings.timeout_seconds, self._clock.now()
                completion = await complete(self._open(), self._url, body, self._headers, limit, now)
            except CallFailed as failure:
                span.set_attribute("error.type", failure.outcome)
                span.set_status(trace.StatusCode.ERROR, str(failure))
                raise
            span.set_attributes(_answered(completion))
            return completion

    def _body(self, asked: Asked, attempt: int, structured: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": list(asked.messages),
            "temperature": self.settings.temperature,
            # The same seed would bring the same malformed answer again.
            "seed": self.settings.seed + attempt - 1,
            "max_tokens": self.settings.max_answer_tokens,
        }
        if structured:
            schema = {"name": asked.schema_name, "strict": True, "schema": asked.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        return self._session

    def _count(self, outcome: str) -> None:
        self._metrics.counters.tidegauge_judge_requests_total.labels(outcome=outcome).inc()

    def _spent(self, spent: tuple[int, int]) -> None:
        for kind, tokens in zip(("input", "output"), spent, strict=True):
            self._metrics.counters.tidegauge_judge_tokens_total.labels(token_type=kind).inc(tokens)
        self._show_budget()

    def _show_budget(self) -> None:
        self._metrics.gauges.tidegauge_judge_budget_remaining_tokens.set(self.budget.remaining)


class _Attempted(Exception):
    """A call that failed, and the (input, output) tokens charged for it."""

    def __init__(self, cause: CallFailed, spent: tuple[int, int]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.spent = spent


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _add(use: JudgeUse, spent: tuple[int, int], model: str | None) -> JudgeUse:
    return JudgeUse(model or use.model, use.input_tokens + spent[0], use.output_tokens + spent[1])


def _answered(completion: Completion) -> dict[str, Any]:
    found = {
        "gen_ai.response.model": completion.model,
        "gen_ai.response.id": completion.response_id,
        "gen_ai.usage.input_tokens": completion.input_tokens,
        "gen_ai.usage.output_tokens": completion.output_tokens,
        "gen_ai.response.finish_reasons": [completion.finish_reason] if completion.finish_reason else None,
    }
    return {key: value for key, value in found.items() if value is not None}
