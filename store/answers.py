"""Calls whose answer comes as a span of its own.

Logfire ends the span of a streamed call before the answer begins, and sends the answer and its usage later: a span of
no length, without a parent in common or even a trace, that says how long the stream took.  The two are told by the
instance, tenant, model and prompt that they share, and by the stream's beginning, which is the call's end.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

# Between a call's end and the first look at its stream there is the application's own work.
LATEST_SECONDS = 30.0
CLOCK_SECONDS = 0.05
MAX_KEYS = 1_000
MAX_WAITING = 20  # of the same key

SpanT = TypeVar("SpanT")


def is_answer(row: Mapping[str, Any]) -> bool:
    """Whether a span of a call is an answer alone: no length of its own, but the stream's."""
    return (
        row["vantage"] == "client"
        and row["request_duration_s"] is not None
        and row["start_time"] == row["end_time"]
        and not row["response_id"]
    )


def is_unanswered(row: Mapping[str, Any]) -> bool:
    """Whether a span of a call that did not fail says nothing of an answer."""
    return (
        row["vantage"] == "client"
        and row["kind"] == "llm"
        and row["status"] != "error"
        and not row["response_id"]
        and row["response_model"] is None
        and row["output_tokens"] is None
        and not row["finish_reason"]
    )


class Answers(Generic[SpanT]):
    """Calls and answers that wait for each other; the oldest are forgotten."""

    def __init__(self) -> None:
        self._calls: OrderedDict[tuple[Hashable, ...], list[tuple[float, SpanT]]] = OrderedDict()
        self._answers: OrderedDict[tuple[Hashable, ...], list[tuple[float, SpanT]]] = OrderedDict()

    def meet(self, row: Mapping[str, Any], span: SpanT) -> SpanT | None:
        """The call that an answer belongs to, or the answer of a call; None where it has to wait, or is neither."""
        if is_answer(row):
            moment, waiting, own, direction = _began(row), self._calls, self._answers, -1
        elif is_unanswered(row):
            moment, waiting, own, direction = row["end_time"].timestamp(), self._answers, self._calls, 1
        else:
            return None
        met = _taken(waiting, key(row), moment, direction)
        if met is None:
            _wait(own, key(row), moment, span)
        return met


def key(row: Mapping[str, Any]) -> tuple[Hashable, ...]:
    """What a call and its answer have in common."""
    return tuple(row[name] for name in ("tenant", "instance", "request_model", "prompt_key"))


def _began(row: Mapping[str, Any]) -> float:
    """When the stream of an answer began."""
    return float(row["start_time"].timestamp() - row["request_duration_s"])


def _taken(
    waiting: OrderedDict[tuple[Hashable, ...], list[tuple[float, SpanT]]],
    shared: tuple[Hashable, ...],
    moment: float,
    direction: int,
) -> SpanT | None:
    """The one nearest in time, taken out: before `moment` where the direction is -1, else after."""
    entries = waiting.get(shared, [])
    distances = ((direction * (other - moment), index) for index, (other, _) in enumerate(entries))
    near = [(abs(gap), index) for gap, index in distances if -CLOCK_SECONDS <= gap <= LATEST_SECONDS]
    if not near:
        return None
    _, span = entries.pop(min(near)[1])
    if not entries:
        del waiting[shared]
    return span


def _wait(
    waiting: OrderedDict[tuple[Hashable, ...], list[tuple[float, SpanT]]],
    shared: tuple[Hashable, ...],
    moment: float,
    span: SpanT,
) -> None:
    entries = waiting.setdefault(shared, [])
    entries.append((moment, span))
    del entries[:-MAX_WAITING]
    while len(waiting) > MAX_KEYS:
        waiting.popitem(last=False)
