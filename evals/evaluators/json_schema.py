"""Whether an answer conforms to the JSON schema that the request asked for."""

from evals.evaluator import NOT_APPLICABLE, Better, Sample, Scale, Score, failed
from evals.schema import BadSchema, TooExpensive, compiled, first_error
from evals.strict_json import NotJson, parse

LOOKED_AT = 1_000_000


class JsonSchema:
    """1.0 if the answer is JSON that conforms to `response_schema`, else 0.0; not applicable without a schema.

    A schema that is invalid, refers to something outside itself or takes too long to check makes the score failed,
    for it says nothing about the answer.  Nothing is ever fetched.  Formats are not checked.
    Labels: `conforms`, `violates`, `not_json`.  The explanation names the place and the keyword, not the value.
    """

    name = "json_schema"
    version = "1"
    reads = ("output_text", "response_schema")
    scale = Scale(0.0, 1.0, Better.HIGHER)

    def score(self, sample: Sample) -> Score:
        if not sample.response_schema:
            return NOT_APPLICABLE
        if len(sample.output_text) > LOOKED_AT:
            return failed("too_large", f"more than {LOOKED_AT} characters")
        try:
            validator = compiled(sample.response_schema)
            error = first_error(validator, parse(sample.output_text))
        except NotJson as problem:
            return Score(0.0, "not_json", str(problem))
        except BadSchema as problem:
            return failed("bad_schema", str(problem))
        except TooExpensive as problem:
            return failed("too_expensive", str(problem))
        return Score(1.0, "conforms") if error is None else Score(0.0, "violates", error)
