"""Whether an answer matches, or avoids, patterns that somebody wrote down."""

from collections.abc import Sequence

from evals.evaluator import NOT_APPLICABLE, Better, Sample, Scale, Score
from evals.patterns import Pattern

LOOKED_AT = 1_000_000


class RegularExpression:
    """1.0 if every `must_match` is found in the answer and no `must_not_match`, else 0.0.

    Patterns are RE2's: search semantics, time linear in the answer whatever the pattern, hence no look-around and no
    back-references (refused at the start).  Without patterns it is not applicable.  Give each use a `name` of its own.
    Labels: `pass`, `missing`, `forbidden`.  The explanation quotes the pattern, never the answer.
    """

    name = "regular_expression"
    version = "1"
    reads = ("output_text",)
    scale = Scale(0.0, 1.0, Better.HIGHER)

    def __init__(
        self, must_match: str | Sequence[str] = (), must_not_match: str | Sequence[str] = (), ignore_case: bool = False
    ) -> None:
        self._must_match = [Pattern(text, ignore_case) for text in _listed(must_match)]
        self._must_not_match = [Pattern(text, ignore_case) for text in _listed(must_not_match)]

    def score(self, sample: Sample) -> Score:
        if not (self._must_match or self._must_not_match):
            return NOT_APPLICABLE
        text = sample.output_text[:LOOKED_AT]
        for pattern in self._must_match:
            if not pattern.found_in(text):
                return Score(0.0, "missing", f"no match of {pattern.text}")
        for pattern in self._must_not_match:
            if pattern.found_in(text):
                return Score(0.0, "forbidden", f"match of {pattern.text}")
        return Score(1.0, "pass")


def _listed(patterns: str | Sequence[str]) -> Sequence[str]:
    return [patterns] if isinstance(patterns, str) else patterns
