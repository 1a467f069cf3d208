"""A model's grade of the answer, by a rubric."""

import hashlib

from evals.evaluator import Better, Sample, Scale, Score, failed
from evals.judge.client import Asked, JudgeClient, JudgeFailed
from evals.judge.rubric import HIGH, LOW, PROMPT_VERSION, QUALITY, SCHEMA, prompt, read_verdict


class Judge:
    """The judge's grade of 1 to 5 as a value of 0.0 to 1.0; the label is the grade, the explanation its reason.

    Whatever is not a grade by the rubric (broken JSON, other keys, a grade out of range, no answer) is a failed score
    with the reason as its `error_type`, never a guess.  The version covers prompt, rubric and the judge's model.
    Scores of other rubrics need other names: `{judge: {name: tone, rubric: "5: ... 1: ..."}}`.
    """

    name = "judge"
    reads = ("output_text", "input_text", "system_text", "input_messages")
    scale = Scale(0.0, 1.0, Better.HIGHER)
    version = PROMPT_VERSION

    def __init__(self, rubric: str = QUALITY, client: JudgeClient | None = None) -> None:
        if not 10 <= len(rubric) <= 8_000:
            raise ValueError(f"rubric of {len(rubric)} characters; it takes 10 to 8,000")
        self._rubric = rubric
        self._client = client
        if client is not None:
            told = hashlib.sha256(f"{client.settings.model}\0{rubric}".encode()).hexdigest()[:8]
            self.version = f"{PROMPT_VERSION}-{told}"

    async def ask(self, sample: Sample) -> Score:
        if self._client is None:
            return failed("not_configured", "evals.judge has no url and model")
        messages = prompt(self._rubric, sample, self._client.settings.max_characters)
        asked = Asked(messages, "verdict", SCHEMA, self.name)
        try:
            verdict, use, attempts = await self._client.ask(asked, read_verdict)
        except JudgeFailed as problem:
            return failed(problem.outcome, str(problem), problem.attempts, problem.use)
        assert LOW <= verdict.score <= HIGH
        return Score(verdict.value, str(verdict.score), verdict.reason, attempts=attempts, judge=use)
