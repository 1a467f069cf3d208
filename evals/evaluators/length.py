"""How long an answer is."""

import re

from evals.evaluator import Better, Sample, Scale, Score

# Scripts written without spaces have no words to count at this price: each of their characters counts as one.
UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿຀-໿ក-៿"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:['’\-][^\W{UNSPACED}]+)*")
LABELS = ((0, "empty"), (10, "short"), (100, "medium"), (1_000, "long"))


class Length:
    """The answer's length in words; a character of Chinese, Japanese, Thai, Lao or Khmer counts as one.

    Words, not tokens: the same text keeps its length when the model, and with it the tokenizer, changes.  Tokens are
    a column of the request (`spans.output_tokens`) and need no evaluator.
    Labels: `empty`, `short` (up to 10), `medium` (up to 100), `long` (up to 1,000), `very_long`.
    """

    name = "length"
    version = "1"
    reads = ("output_text",)
    scale = Scale(0.0, float("inf"), Better.NEUTRAL, unit="words")

    def score(self, sample: Sample) -> Score:
        words = sum(1 for _ in WORD.finditer(sample.output_text))
        label = next((label for bound, label in LABELS if words <= bound), "very_long")
        return Score(float(words), label, f"{len(sample.output_text)} characters")
