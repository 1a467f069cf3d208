"""Settings of drift: defaults of an empty file, durations, and what is refused."""

import doctest

import pytest
from pydantic import ValidationError

from catalog.duration import seconds, spelled
from evals.drift import frame, settings, statistics
from evals.drift.settings import DriftSettings, SignalKind


def test_an_empty_mapping_gives_the_contracts_signals_and_budget() -> None:
    drift = DriftSettings.model_validate({})
    assert drift.false_pages_per_30_days == 1
    assert [(signal.name, signal.column, signal.by, signal.kind) for signal in drift.signals] == [
        ("refusal", "scores.refusal", ("model", "tenant", "prompt_version"), SignalKind.AUTO),
        ("output length", "spans.output_tokens", ("model",), SignalKind.AUTO),
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("5m", 300), ("1h30m", 5400), ("90s", 90), ("250ms", 0.25), ("2d", 172800)]
)
def test_durations_are_read_and_written(text: str, value: float) -> None:
    assert seconds(text) == value
    assert seconds(spelled(value)) == value


def test_durations_survive_a_round_trip_through_json() -> None:
    drift = DriftSettings(round="30s", window="10m", reference="2h", lag="0s")
    assert '"reference":"2h"' in drift.model_dump_json()
    assert DriftSettings.model_validate_json(drift.model_dump_json()) == drift


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": "5 minutes"}, "is no duration; write '1s'"),
        ({"window": 0}, "greater than 0"),
        ({"false_pages_per_30_days": -1}, "greater than or equal to 0"),
        ({"false_pages": 1}, "Extra inputs"),
        ({"signals": [{"name": "x", "column": "refusal"}]}, "should match pattern"),
        ({"signals": [{"name": "x", "column": "scores.a"}, {"name": "x", "column": "scores.b"}]}, "x is there twice"),
        ({"signals": [{"name": "x", "column": "scores.a", "by": ["model", "model"]}]}, "names a dimension twice"),
        ({"signals": [{"name": "x", "column": "spans.output_token"}]}, "did you mean 'output_tokens'"),
        ({"signals": [{"name": "x", "column": "scores.a", "by": ["tenants"]}]}, "did you mean 'tenant'"),
        ({"signals": [{"name": "x", "column": "scores.a", "direction": "sideways"}]}, "'up', 'down' or 'both'"),
    ],
    ids=[
        "duration",
        "zero",
        "negative",
        "unknown key",
        "column",
        "same name",
        "same dimension",
        "no such column",
        "no such dimension",
        "direction",
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DriftSettings.model_validate(given)


@pytest.mark.parametrize("module", [settings, statistics, frame], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
