"""Whether an answer that had to be JSON is JSON."""

from evals.evaluator import NOT_APPLICABLE, Better, Sample, Scale, Score
from evals.strict_json import NotJson, parse

WANTED = ("json_object", "json_schema")


class JsonValidity:
    """1.0 if the answer parses as JSON, else 0.0; not applicable unless the request asked for JSON.

    Labels: `valid`, `truncated` (the engine stopped at the token limit), `fenced` (valid inside a Markdown fence,
    which a consumer's parser would refuse), `invalid`.
    """

    name = "json_validity"
    version = "1"
    reads = ("output_text", "response_format", "finish_reason")
    scale = Scale(0.0, 1.0, Better.HIGHER)

    def score(self, sample: Sample) -> Score:
        if sample.response_format not in WANTED:
            return NOT_APPLICABLE
        try:
            parse(sample.output_text)
        except NotJson as error:
            return Score(0.0, _label(sample), str(error))
        return Score(1.0, "valid")


def _label(sample: Sample) -> str:
    if sample.finish_reason in ("length", "max_tokens"):
        return "truncated"
    text = sample.output_text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        try:
            parse(text[text.index("\n") : -3])
        except NotJson:
            return "invalid"
        return "fenced"
    return "invalid"
