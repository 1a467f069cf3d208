"""What each evaluator says about real answers, and about answers made to trip it."""

import json
from pathlib import Path
from typing import Any

import pytest

from evals import registry
from evals.evaluator import NOT_APPLICABLE, Sample, Score, Status, evaluate
from evals.samples import sample

DATA = Path(__file__).parents[1] / "data" / "evals"
REQUESTS: list[dict[str, Any]] = json.loads((DATA / "requests.json").read_text())
REFUSALS = json.loads((DATA / "refusal.json").read_text())


def score(kind: str, given: Sample, **parameters: Any) -> Score:
    return evaluate(registry.configure(kind, parameters), given)


def asked_for_json(text: str, **more: Any) -> Sample:
    return Sample(text, response_format="json_object", **more)


# --- refusal ---------------------------------------------------------------------------------------------------------


def test_refusal_agrees_with_a_reader_of_the_recorded_answers() -> None:
    verdicts = [(score("refusal", Sample(case["text"])).value == 1, case["refuses"]) for case in REFUSALS["recorded"]]
    said = [truth for found, truth in verdicts if found]
    meant = [found for found, truth in verdicts if truth]
    assert sum(said) / len(said) >= 0.95, "precision"
    assert sum(meant) / len(meant) >= 0.9, "recall"


@pytest.mark.parametrize("case", REFUSALS["written"], ids=lambda case: f"{case['language']}-{case['text'][:24]}")
def test_refusal_knows_languages_and_traps(case: dict[str, Any]) -> None:
    assert score("refusal", Sample(case["text"])).value == float(case["refuses"])


def test_refusal_does_not_repeat_the_answer() -> None:
    found = score("refusal", Sample("I'm sorry, but I cannot help with account 4711."))
    assert found == Score(1.0, "cannot_help", "declines at character 15")


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_recorded_extractions_are_valid_unless_cut() -> None:
    extractions = [sample(row) for row in REQUESTS if row["service"] == "ticket-extractor" and row["status"] == "ok"]
    labels = [(score("json_validity", each).label, score("json_schema", each).label) for each in extractions]
    assert labels[:8] == [("valid", "conforms")] * 8
    assert ("truncated", "not_json") in labels[8:]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"a": 1}', "valid"),
        ("null", "valid"),
        ("```json\n{}\n```", "fenced"),
        ("```\nno\n```", "invalid"),
        ("{'a': 1}", "invalid"),
        ("NaN", "invalid"),
        ('{"a": Infinity}', "invalid"),
        ("[" * 100_000, "invalid"),
        ("", "invalid"),
        ("9" * 10_000, "valid"),
    ],
    ids=lambda value: str(value)[:16],
)
def test_json_validity_is_that_of_the_standard(text: str, label: str) -> None:
    assert score("json_validity", asked_for_json(text)).label == label


def test_json_is_only_asked_for_where_the_request_did() -> None:
    assert score("json_validity", Sample("prose", response_format="text")) == NOT_APPLICABLE
    assert score("json_schema", asked_for_json("{}")) == NOT_APPLICABLE


def conforms(schema: Any, value: Any) -> Score:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return score("json_schema", Sample(json.dumps(value), response_schema=text))


@pytest.mark.parametrize(
    ("schema", "value", "explanation"),
    [
        ({"type": "object", "required": ["a"]}, {"a": 1}, None),
        ({"type": "object", "required": ["a"]}, {}, "/: required"),
        ({"properties": {"a": {"enum": ["x"]}}}, {"a": "y"}, "/a: enum"),
        ({"properties": {"a": True}, "additionalProperties": False}, {"b": 1}, "/: additionalProperties"),
        ({"additionalProperties": {"type": "string"}}, {"b": 1}, "/b: type"),
        ({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False}, {"x1": "a"}, None),
        ({"patternProperties": {"^x": {"type": "string"}}}, {"x1": 1}, "/x1: type"),
        ({"items": {"pattern": "^a+$"}}, ["aa", "b"], "/1: pattern"),
        ({"uniqueItems": True}, [1, 1.0], "/: uniqueItems"),
        ({"uniqueItems": True}, [1, True, "1", [1]], None),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "x", "/: type"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"minimum": 3}},
             "items": {"$ref": "#/definitions/n"}},
            [1],
            "/0: minimum",
        ),
        (True, 1, None),
        (False, 1, "/: None"),
    ],
    ids=str,
)  # fmt: skip
def test_schema_conformance_names_place_and_keyword(schema: Any, value: Any, explanation: str | None) -> None:
    found = conforms(schema, value)
    assert (found.value, found.explanation) == (1.0 if explanation is None else 0.0, explanation)


DOUBLING = {
    "$ref": "#/$defs/0",
    "$defs": {str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(60)} | {"60": {}},
}


@pytest.mark.parametrize(
    ("schema", "value", "error"),
    [
        ("{", 1, "bad_schema"),
        ("[]", 1, "bad_schema"),
        ({"type": "no such type"}, 1, "bad_schema"),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, 1, "bad_schema"),
        ({"$ref": "file:///etc/passwd"}, 1, "bad_schema"),
        ({"$ref": "#/nowhere"}, 1, "bad_schema"),
        ({"pattern": "(?=a)"}, "a", "bad_schema"),
        ({"unevaluatedProperties": False}, {"a": 1}, "bad_schema"),
        ({"enum": ["x" * 70_000]}, 1, "bad_schema"),
        ({"$ref": "#"}, 1, "too_expensive"),
        (DOUBLING, 1, "too_expensive"),
        ({"items": {"enum": list(range(5_000))}}, [-1] * 20_000, None),
        ({"items": {"anyOf": [{"enum": list(range(1, 5_000))}, {}]}}, [0] * 20_000, "too_expensive"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_hostile_schemas_cost_little_and_say_nothing_about_the_answer(
    schema: Any, value: Any, error: str | None
) -> None:
    assert conforms(schema, value).error_type == error


def test_a_pattern_that_backtracks_for_ever_in_re_is_answered_at_once() -> None:
    assert conforms({"pattern": "^(a+)+$"}, "a" * 200_000 + "!").explanation == "/: pattern"
    assert conforms({"patternProperties": {"^(a+)+$": False}}, {"a" * 50_000 + "!": 1}).value == 1.0
    assert conforms({"uniqueItems": True}, [{"n": i} for i in range(50_000)]).value == 1.0


# --- regular expression ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ticket T-123 is open.", Score(1.0, "pass")),
        ("No ticket.", Score(0.0, "missing", r"no match of T-\d+")),
        ("T-123: call 0800 123456", Score(0.0, "forbidden", r"match of \d{6,}")),
    ],
    ids=["pass", "missing", "forbidden"],
)
def test_regular_expression_wants_all_and_none(text: str, expected: Score) -> None:
    found = score("regular_expression", Sample(text), must_match=[r"T-\d+"], must_not_match=[r"\d{6,}"])
    assert found == expected


def test_regular_expression_is_linear() -> None:
    found = score("regular_expression", Sample("a" * 900_000 + "!"), must_match=["^(a+)+$"])
    assert found.label == "missing"


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?<=a)b", "x" * 3_000], ids=["open", "back", "look", "long"])
def test_a_pattern_that_cannot_be_run_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(registry.BadParameters, match=r"regular_expression: .*(RE2 syntax|longer than)"):
        registry.configure("regular_expression", {"must_match": [pattern]})


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "label"),
    [
        ("", 0, "empty"),
        ("Don't re-open it.", 3, "short"),
        ("转账需要两天", 6, "short"),
        ("one " * 11, 11, "medium"),
        ("one " * 2_000, 2_000, "very_long"),
    ],
    ids=["empty", "english", "chinese", "medium", "very_long"],
)
def test_length_counts_words(text: str, words: int, label: str) -> None:
    found = score("length", Sample(text))
    assert (found.value, found.label) == (words, label)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("No, " * 40, "loop"),
        ("hahaha" * 500, "loop"),
        ("很好" * 50, "loop"),
        ("You're not allowed to use the website. " * 6, "loop"),
        (
            "The river rose by a metre overnight. The town opened the flood gates at dawn, and by noon it was dry.",
            "fresh",
        ),
    ],
    ids=["no", "haha", "chinese", "sentence", "prose"],
)
def test_repetition_sees_loops(text: str, label: str) -> None:
    assert score("repetition", Sample(text)).label == label


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        ("How long does a transfer take?", "A transfer takes two or three working days.", 1.0),
        ("How long does a transfer take?", "Eine Überweisung dauert zwei bis drei Werktage.", 0.0),
        ("Wie lange dauert eine Überweisung ins Ausland?", "A transfer takes two or three working days.", 0.0),
        ("转账到另一个国家需要多长时间？", "转账到另一个国家通常需要两到三个工作日。", 1.0),
        ("Why?", "A transfer takes two or three working days.", None),
        ("How long does a transfer take?", "2-3 Tage", None),
        ("Translate to German: how long does a transfer take?", "Wie lange dauert eine Überweisung denn?", None),
        ("How long does a transfer take? Answer in French please.", "Un virement prend deux à trois jours.", None),
        ("How do I parse this in Python?", "```python\nfür_immer = lesen(datei)\nschreiben(für_immer)\n```", None),
    ],
    ids=["same", "german", "english", "chinese", "short question", "short answer", "translation", "by name", "code"],
)
def test_language_consistency_needs_to_be_certain(question: str, answer: str, value: float | None) -> None:
    assert score("language_consistency", Sample(answer, input_text=question)).value == value


def test_language_consistency_is_silent_about_recorded_english() -> None:
    english = [sample(row) for row in REQUESTS if row["status"] == "ok" and row["service"] == "summariser"]
    assert {score("language_consistency", each).value for each in english} <= {1.0, None}


# --- isolation -------------------------------------------------------------------------------------------------------


class Broken:
    name, version, reads, scale = "broken", "1", ("output_text",), registry.configure("length").scale

    def score(self, sample: Sample) -> Score:
        raise KeyError("content that must not be told")


class Excessive(Broken):
    def score(self, sample: Sample) -> Score:
        return Score(-1.0)


def test_an_evaluator_that_raises_fails_by_its_exceptions_class_alone() -> None:
    assert evaluate(Broken(), Sample("x")) == Score(None, status=Status.FAILED, error_type="KeyError")


def test_a_value_off_the_scale_is_a_failure() -> None:
    assert evaluate(Excessive(), Sample("x")).error_type == "out_of_range"
