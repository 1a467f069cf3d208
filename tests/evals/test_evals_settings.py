"""Policies: what may be written, and which requests they choose."""

from typing import Any

import pytest
from pydantic import ValidationError

from evals import sampling
from evals.settings import EvalSettings, Policy

JUDGE = {"url": "http://judge:8000/v1", "model": "m"}
ROW = {"trace_id": "a" * 32, "span_id": "b" * 16, "operation": "chat", "status": "ok", "tenant": "bank"}


def names(settings: EvalSettings) -> list[list[str]]:
    return [[use.name for use in policy.evaluators] for policy in settings.effective_policies()]


def test_an_empty_file_scores_every_chat_cheaply_and_a_judge_adds_five_percent() -> None:
    cheap = ["json_validity", "refusal", "length", "repetition"]
    assert names(EvalSettings()) == [cheap]
    judged = EvalSettings(judge=JUDGE)
    assert names(judged) == [cheap, ["judge"]]
    assert [policy.rate for policy in judged.effective_policies()] == [1.0, 0.05]
    assert names(EvalSettings(judge=JUDGE | {"tokens_per_day": 0})) == [cheap]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policies": [{"evaluators": ["refusals"]}]}, "no evaluator 'refusals'; there are"),
        ({"policies": [{"evaluators": []}]}, "at least 1 item"),
        ({"policies": [{"evaluators": ["length"], "rate": 1.5}]}, "less than or equal to 1"),
        ({"policies": [{"evaluators": ["length"], "where": {"modle": "x"}}]}, "modle is not one of operation, model"),
        ({"policies": [{"evaluators": [{"repetition": {"n": 99}}]}]}, "n: 99 is not within 2 to 10"),
        ({"policies": [{"evaluators": [{"length": {"unit": "x"}}]}]}, "no parameter unit; it takes name"),
        ({"policies": [{"evaluators": [{"judge": {"client": "x"}}]}]}, "no parameter client; it takes name, rubric"),
        ({"policies": [{"evaluators": [{"length": {"name": "No Good"}}]}]}, "name 'No Good' is not lower case"),
        (
            {"policies": [{"evaluators": [{"regular_expression": {"must_match": "("}}]}]},
            "missing \\)",
        ),
        (
            {"policies": [{"evaluators": ["repetition", {"repetition": {"n": 5}}]}]},
            "'repetition' has two sets of parameters; give one of them another name",
        ),
        ({"policies": [{"evaluators": ["judge"]}]}, "judge.url and judge.model are not set"),
        ({"judge": {"url": "judge:8000", "model": "m"}}, "String should match pattern"),
        ({"judge": JUDGE | {"tokens_per_day": -1}}, "greater than or equal to 0"),
        ({"judge": JUDGE | {"api_key": "a", "api_key_file": "b"}}, "exclude each other"),
        ({"polices": []}, "Extra inputs are not permitted"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_is_refused_with_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvalSettings(**values)


def test_a_key_is_not_shown() -> None:
    assert "sk-secret" not in repr(EvalSettings(judge=JUDGE | {"api_key": "sk-secret"}))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"operation": "chat"}, True),
        ({"operation": "chat", "tenant": ["bank", "clinic"]}, True),
        ({"tenant": "retail"}, False),
        ({"model": "answered"}, True),
        ({"model": "asked"}, False),
        ({"region": "eu"}, False),
    ],
    ids=str,
)
def test_where_compares_what_the_request_says(where: dict[str, Any], expected: bool) -> None:
    policy = Policy(where=where, evaluators=["length"])
    assert sampling.matches(policy, ROW | {"response_model": "answered", "request_model": "asked"}) is expected


def requests(count: int) -> list[dict[str, Any]]:
    return [ROW | {"trace_id": f"{i:032x}", "span_id": f"{i:016x}"} for i in range(count)]


def test_the_share_that_is_scored_is_the_rate() -> None:
    policies = [Policy(rate=0.2, evaluators=["length"])]
    n = 20_000
    taken = sum("length" in sampling.chosen(policies, row) for row in requests(n))
    # Four standard deviations of a binomial share.
    assert taken / n == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / n) ** 0.5)


def test_policies_that_overlap_take_the_higher_rate_and_say_so() -> None:
    low, high = Policy(rate=0.1, evaluators=["length"]), Policy(rate=0.5, evaluators=["length", "refusal"])
    for row in requests(200):
        both = sampling.chosen([low, high], row)
        assert both == sampling.chosen([high], row)
        assert set(both.values()) <= {0.5}
        assert "length" in both or "length" not in sampling.chosen([low], row)


def test_evaluators_are_sampled_independently_of_each_other() -> None:
    policies = [Policy(rate=0.5, evaluators=["length", "refusal"])]
    n = 4_000
    both = sum(len(sampling.chosen(policies, row)) == 2 for row in requests(n))
    assert both / n == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / n) ** 0.5)


def test_errors_are_taken_always_unless_told_otherwise() -> None:
    failed = ROW | {"status": "error"}
    assert sampling.chosen([Policy(rate=0, evaluators=["length"])], failed) == {"length": 1.0}
    assert sampling.chosen([Policy(rate=0, evaluators=["length"], always_on_errors=False)], failed) == {}
    assert sampling.chosen([Policy(rate=0, evaluators=["length"])], ROW) == {}


def test_the_choice_is_the_same_on_every_machine() -> None:
    assert sampling.uniform("a" * 32, "b" * 16, "judge") == 0.25518341822001783
