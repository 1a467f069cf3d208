"""What an evaluator is: something with a name and a version that turns a sample into a score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Status(StrEnum):
    """What became of an evaluation."""

    SCORED = "scored"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"


class Better(StrEnum):
    """Which way a value would have to move to be good news."""

    HIGHER = "higher"
    LOWER = "lower"
    NEUTRAL = "neutral"


@dataclass(frozen=True, slots=True)
class Scale:
    """Bounds of an evaluator's values (both can be reached) and which end is good; `unit` is empty for a share."""

    low: float
    high: float
    better: Better
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as evaluators see it.

    `output_text` is the text of the answer and `answered` says whether there was one: without it (an error, content
    not captured, only a tool call) `output_text` is empty, and evaluators that read it are not asked.  `input_text`
    is the last message of the user, `system_text` all system messages.  Other text is None where nothing was said.
    Messages are in the form of the OpenTelemetry GenAI conventions.
    """

    output_text: str = ""
    answered: bool = True
    input_text: str = ""
    system_text: str = ""
    input_messages: Sequence[Mapping[str, Any]] = ()
    output_messages: Sequence[Mapping[str, Any]] = ()
    response_format: str | None = None
    response_schema: str | None = None
    finish_reason: str | None = None
    status: str | None = None
    error_type: str | None = None
    tenant: str | None = None
    service: str | None = None
    model: str | None = None
    operation: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    environment: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    expected: str | None = None
    retrieved_documents: Sequence[Any] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeUse:
    """What a judged score cost."""

    model: str
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """A value with what it takes to understand it.

    `value` is None unless the status is `scored`.  `label` comes from a small set that the evaluator defines; it is
    what categories are counted by.  `explanation` says why, for a person who looks at one request.
    """

    value: float | None
    label: str | None = None
    explanation: str | None = None
    status: Status = Status.SCORED
    error_type: str | None = None
    attempts: int = 1
    judge: JudgeUse | None = None


NOT_APPLICABLE = Score(None, status=Status.NOT_APPLICABLE)


def failed(error_type: str, explanation: str | None = None, attempts: int = 1, judge: JudgeUse | None = None) -> Score:
    """A score that could not be given; nothing is invented in its place."""
    return Score(None, None, explanation, Status.FAILED, error_type, attempts, judge)


class Deferred(Exception):
    """The score cannot be given before a point in time (unix seconds); it is to be asked for again then."""

    def __init__(self, until: float) -> None:
        super().__init__(f"not before {until:.0f}")
        self.until = until


class Described(Protocol):
    """What every evaluator says of itself.

    `reads` names the fields of Sample that it looks at.  `version` changes whenever the same sample may get another
    score: scores of two versions are not comparable, and never mixed.
    """

    @property
    def name(self) -> str:
        """Unique, lower case with underscores."""

    @property
    def version(self) -> str:
        """Short; changes with the scores."""

    @property
    def reads(self) -> Sequence[str]:
        """Fields of Sample."""

    @property
    def scale(self) -> Scale:
        """The range of the values and which end is good."""


@runtime_checkable
class Evaluator(Described, Protocol):
    """Scores at once; called from a worker thread, so it keeps no state between samples."""

    def score(self, sample: Sample) -> Score:
        """The sample's score."""


@runtime_checkable
class AsyncEvaluator(Described, Protocol):
    """Scores by asking somebody else; many samples are in flight at a time."""

    async def ask(self, sample: Sample) -> Score:
        """The sample's score."""


def applies(evaluator: Described, sample: Sample) -> bool:
    """Whether what the evaluator cannot do without is there."""
    return sample.answered or "output_text" not in evaluator.reads


def evaluate(evaluator: Evaluator, sample: Sample) -> Score:
    """The evaluator's score; what it raises becomes a failed score with the exception's class."""
    if not applies(evaluator, sample):
        return NOT_APPLICABLE
    try:
        return checked(evaluator, evaluator.score(sample))
    except Exception as error:
        return failed(type(error).__name__)


def checked(evaluator: Described, score: Score) -> Score:
    """`score`, or a failed one if its value is not on the evaluator's scale, or it could not be stored."""
    texts = (score.label, score.explanation, score.error_type)
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(score.status, Status):
        return failed("malformed_score")
    if score.status is not Status.SCORED:
        return score if score.value is None else replace(score, value=None)
    scale = evaluator.scale
    if score.value is None or not math.isfinite(score.value) or not scale.low <= score.value <= scale.high:
        reason = f"{score.value!r} is not within {scale.low:g} to {scale.high:g}"
        return failed("out_of_range", reason, score.attempts, score.judge)
    return score
