"""Which states are reported, and which only show another's drift."""

import pytest

from evals.drift.findings import findings
from evals.drift.state import Against, Period, Phase, Round, State, restored, table_of
from tests.drift_kit import T0

NEW = {"tenant": "bank", "prompt_name": "support", "prompt_version": "2"}


def state(values: dict[str, str], against: Against, since: float, phase: Phase = Phase.CONFIRMED) -> State:
    one = State("refusal", values, str(values), against, since=T0 + since)
    one.raise_to(phase)
    return one


@pytest.mark.parametrize(
    ("values", "since", "echo"),
    [
        ({}, 400.0, True),
        ({"tenant": "bank"}, 350.0, True),
        ({"tenant": "retail"}, 400.0, False),
        ({"tenant": "bank"}, 100.0, False),
        ({"tenant": "bank"}, 700.0, False),
    ],
    ids=["all", "the tenant", "another tenant", "before", "after"],
)
def test_a_parent_that_moves_with_a_new_version_is_not_reported_beside_it(
    values: dict[str, str], since: float, echo: bool
) -> None:
    version = state(NEW, Against.PREDECESSOR, 360.0)
    version.resolve(T0 + 600, "no longer served")
    reported = [one["slice"] for one in findings([version, state(values, Against.TRAILING, since)])]
    assert (values not in reported) == echo
    assert NEW in reported


def test_a_page_is_not_hidden_behind_a_suspicion() -> None:
    version = state(NEW, Against.PREDECESSOR, 360.0, Phase.SUSPECTED)
    reported = findings([version, state({"tenant": "bank"}, Against.TRAILING, 400.0)])
    assert [one["peak"] for one in reported] == ["confirmed", "suspected"]


def test_a_state_survives_its_row() -> None:
    one = state(NEW, Against.PREDECESSOR, 360.0)
    one.reference, one.calm, one.notes = Period(T0, T0 + 360), 2, {"value": "2", "opened": T0 + 480}
    one.row = dict.fromkeys(
        "detector n_current n_reference statistic p_value log_e_value q_threshold effect_size effect_low effect_high "
        "effect_unit current_mean reference_mean".split()
    )
    this = Round(T0 + 540, 9, Period(T0 + 180, T0 + 480), Period(T0, T0 + 180))
    assert restored(table_of([(one, this.window)], this).to_pylist()[0]) == one
