"""Whether an answer runs in circles."""

import re

from evals.evaluator import NOT_APPLICABLE, Better, Sample, Scale, Score
from evals.evaluators.length import UNSPACED

# Pieces of at most 16 characters, so that a loop without spaces ("hahaha...") is seen as one, too.
PIECE = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]{{1,16}}|[^\w\s]")
# Loops run to the end of the answer, so it is the end that is looked at.
LOOKED_AT = 100_000


class Repetition:
    """Share of word 4-grams that occurred before in the answer: 0.0 all new, near 1.0 a loop.

    Prose stays below 0.1, lists and tables with equal rows reach 0.3; a model that has lost the thread passes 0.5.
    Not applicable to an answer of fewer than 8 pieces (words and punctuation marks), in which nothing can loop.
    The share of repeated n-grams is what Welleck et al. (2020, Neural Text Generation with Unlikelihood Training)
    call seq-rep-4.  Labels: `fresh`, `repetitive` (above 0.2), `loop` (above 0.5).
    """

    name = "repetition"
    version = "1"
    reads = ("output_text",)
    scale = Scale(0.0, 1.0, Better.LOWER)

    def __init__(self, n: int = 4) -> None:
        if not 2 <= n <= 10:
            raise ValueError(f"n: {n} is not within 2 to 10")
        self._n = n

    def score(self, sample: Sample) -> Score:
        pieces = PIECE.findall(sample.output_text[-LOOKED_AT:].lower())
        if len(pieces) < 2 * self._n:
            return NOT_APPLICABLE
        grams = list(zip(*(pieces[start:] for start in range(self._n)), strict=False))
        share = 1.0 - len(set(grams)) / len(grams)
        return Score(share, _label(share), f"{len(grams) - len(set(grams))} of {len(grams)} {self._n}-grams repeated")


def _label(share: float) -> str:
    if share > 0.5:
        return "loop"
    return "repetitive" if share > 0.2 else "fresh"
