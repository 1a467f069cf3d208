"""The contract that every evaluator keeps, found by reflection: a new one is tested before its author writes a test."""

import asyncio
import dataclasses
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest

from evals import registry
from evals.evaluator import Better, Sample, Scale, Score, Status, evaluate
from evals.registry import Configured

DOCS = Path(__file__).parents[2] / "docs" / "evals.md"
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
MEGABYTE = 1_000_000
HOSTILE = {
    "empty_input": "",
    "blank": " \t\r\n\u00a0\u2028",
    "megabyte_of_one_letter": "a" * MEGABYTE,
    "megabyte_of_words": "I am sorry but " * (MEGABYTE // 15),
    "megabyte_of_digits": "1" * MEGABYTE,
    "megabyte_of_spaces": " " * MEGABYTE,
    "megabyte_of_cannot": "i can't really just simply " * (MEGABYTE // 27),
    "megabyte_of_fences": "```" * (MEGABYTE // 3),
    "megabyte_of_at_signs": "a@" * (MEGABYTE // 2),
    "control_characters": "".join(map(chr, range(32))) * 10 + "\x7f\x85",
    "nul": "\0" * 100 + "answer\0",
    "lone_surrogates": "I can't \ud800 help \udfff with that, \ud83d",
    "deeply_nested_json": "[" * 100_000 + "]" * 100_000,
    "deeply_nested_objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "huge_number": "1e999999",
    "not_a_number": "NaN",
    "right_to_left": "\u202eلا أستطيع مساعدتك في ذلك\u202c",
    "combining_marks": "e" + "\u0301" * 50_000,
    "emoji": "👩‍👩‍👧‍👦" * 1_000,
    "german": "Die Überweisung in ein anderes Land dauert in der Regel zwei bis drei Werktage.",
    "chinese": "转账到另一个国家通常需要两到三个工作日，具体取决于银行。",
    "json": '{"a": 1}',
    "markdown": "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1)\n```",
}
ALL = sorted(registry.classes())


def made(kind: str) -> Configured:
    return registry.configure(kind)


def score(evaluator: Configured, sample: Sample) -> Score:
    return asyncio.run(evaluator.ask(sample)) if evaluator.asks else evaluator.score(sample)


def samples_of(text: str) -> list[Sample]:
    """The text in each place in which somebody may put it."""
    plain = Sample(text, input_text="How long does a transfer to another country take?")
    return [
        plain,
        dataclasses.replace(plain, response_format="json_object"),
        dataclasses.replace(plain, response_format="json_schema", response_schema=SCHEMA, finish_reason="length"),
        Sample('{"a": 1}', response_format="json_schema", response_schema=text),
        Sample("A transfer takes two or three days, as a rule.", input_text=text, system_text=text),
    ]


@pytest.mark.parametrize("kind", ALL)
def test_says_what_it_is(kind: str) -> None:
    evaluator = made(kind)
    assert re.fullmatch(r"[a-z][a-z0-9_]{1,40}", evaluator.name)
    assert evaluator.name == kind
    assert re.fullmatch(r"[\w.+-]{1,40}", evaluator.version)
    fields = {field.name for field in dataclasses.fields(Sample)}
    assert evaluator.reads
    assert set(evaluator.reads) <= fields
    assert isinstance(evaluator.scale, Scale)
    assert evaluator.scale.low < evaluator.scale.high
    assert evaluator.scale.better in set(Better)


def test_names_are_unique_and_name_and_version_do_not_depend_on_the_object() -> None:
    first, second = ([(made(kind).name, made(kind).version) for kind in ALL] for _ in range(2))
    assert first == second
    assert len({name for name, _ in first}) == len(first)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_survives_and_answers_soon(kind: str, text: str) -> None:
    evaluator = made(kind)
    for sample in samples_of(text):
        began = time.perf_counter()
        found = score(evaluator, sample)
        took = time.perf_counter() - began
        check(evaluator, found)
        # A hundred times what they take here: a machine may be busy, but quadratic work on a megabyte takes hours.
        assert took < 10, f"{took:.1f} s"


def check(evaluator: Configured, found: Score) -> None:
    assert found.status in set(Status)
    if found.status is Status.SCORED:
        assert found.value is not None
        assert math.isfinite(found.value)
        assert evaluator.scale.low <= found.value <= evaluator.scale.high
    else:
        assert found.value is None
    assert (found.status is Status.FAILED) == (found.error_type is not None)
    for text in (found.label, found.error_type):
        assert text is None or re.fullmatch(r"[A-Za-z0-9_]{1,40}", text)
    assert found.explanation is None or len(found.explanation) < 2_500


@pytest.mark.parametrize("kind", ALL)
def test_the_same_sample_gets_the_same_score(kind: str) -> None:
    sample = samples_of(HOSTILE["markdown"])[2]
    assert score(made(kind), sample) == score(made(kind), sample)


@pytest.mark.parametrize("kind", ALL)
def test_without_an_answer_it_is_not_applicable(kind: str) -> None:
    evaluator = made(kind)
    assert "output_text" in evaluator.reads, "an evaluator of something else than the answer needs a test of its own"
    if not evaluator.asks:
        assert evaluate(evaluator, Sample("", answered=False, status="error")).status is Status.NOT_APPLICABLE


@pytest.mark.parametrize("kind", ALL)
def test_the_documentation_has_it(kind: str) -> None:
    assert f"`{kind}`" in DOCS.read_text()


@pytest.mark.parametrize("kind", ALL)
def test_an_unknown_parameter_is_refused_by_name(kind: str) -> None:
    with pytest.raises(registry.BadParameters, match="no_such_parameter"):
        registry.configure(kind, {"no_such_parameter": 1})


def test_parameters_change_the_version_and_a_name_does_not() -> None:
    def version(**parameters: Any) -> str:
        return registry.configure("regular_expression", parameters).version

    plain, one, other = version(), version(must_match=["a"]), version(must_match=["b"])
    assert len({plain, one, other}) == 3
    assert version(must_match=["a"], name="other_name") == one


def test_an_unknown_evaluator_is_refused_with_those_there_are() -> None:
    with pytest.raises(registry.UnknownEvaluator, match=r"no evaluator 'refusals'; there are .*refusal"):
        registry.configure("refusals")
