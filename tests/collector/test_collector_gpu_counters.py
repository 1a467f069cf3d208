"""Counters that wrap, restart and pause stay monotonic."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.gpu.counters import Counters, moved
from collector.gpu.readings import Reading

ROUND = 2**32


def reading(**values: float) -> Reading:
    return Reading("GPU-1", "node-1", "H100", **values)


def received(*steps: tuple[float, Reading]) -> list[float | None]:
    counters = Counters()
    return [counters.correct(each, at).pcie_receive_bytes for at, each in steps]


def test_the_first_value_is_taken_as_it_is_and_a_wrap_goes_on():
    steps = [(0.0, reading(pcie_receive_bytes=ROUND - 10)), (1.0, reading(pcie_receive_bytes=5))]
    assert received(*steps) == [ROUND - 10, ROUND + 5]


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(0, ROUND - 1),
    amounts=st.lists(st.integers(0, 60_000_000_000), min_size=1, max_size=20),
    errors=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=20, max_size=20),
)
def test_with_a_rate_that_is_off_by_less_than_half_a_round_no_byte_is_lost(
    start: int, amounts: list[int], errors: list[int]
):
    true, total = start, start
    for amount, error in zip(amounts, errors, strict=False):
        total += moved(true % ROUND, (true + amount) % ROUND, ROUND, float(amount + error))
        true += amount
    assert total == true


def test_a_rate_at_56_gigabytes_a_second_counts_thirteen_wraps():
    rate = 56_114 * 2**20
    first, then = 1_000_000, (1_000_000 + rate) % ROUND
    steps = [
        (0.0, reading(pcie_receive_bytes=first)),
        (1.0, reading(pcie_receive_bytes=then, pcie_receive_bytes_per_second=rate * 1.02)),
    ]
    assert received(*steps) == [first, first + rate]


def test_a_rate_says_nothing_about_a_long_gap():
    steps = [
        (0.0, reading(pcie_receive_bytes=0)),
        (60.0, reading(pcie_receive_bytes=7, pcie_receive_bytes_per_second=50e9)),
    ]
    assert received(*steps) == [0, 7]


def test_a_driver_reload_is_no_wrap():
    steps = [
        (0.0, reading(pcie_receive_bytes=1000, energy_joules=5.0)),
        (1.0, reading(pcie_receive_bytes=300, energy_joules=1.0)),
        (2.0, reading(pcie_receive_bytes=400, energy_joules=2.0)),
    ]
    assert received(*steps) == [1000, 1300, 1400]


def test_energy_and_errors_go_on_after_a_reset():
    counters = Counters()
    told = [
        counters.correct(reading(energy_joules=joules, ecc_correctable=errors), float(at))
        for at, (joules, errors) in enumerate([(100.0, 3), (150.0, 4), (20.0, 0), (30.0, 1)])
    ]
    assert [(each.energy_joules, each.ecc_correctable) for each in told] == [
        (100.0, 3),
        (150.0, 4),
        (170.0, 4),
        (180.0, 5),
    ]


def test_a_counter_wider_than_thought_is_reset_when_it_falls():
    steps = [(float(at), reading(pcie_receive_bytes=raw)) for at, raw in enumerate([5 * ROUND, 6 * ROUND, 10])]
    assert received(*steps) == [5 * ROUND, 6 * ROUND, 6 * ROUND + 10]


def test_a_gap_in_what_is_said_stays_a_gap():
    steps = [
        (0.0, reading(pcie_receive_bytes=10)),
        (1.0, reading()),
        (2.0, reading(pcie_receive_bytes=30)),
    ]
    assert received(*steps) == [10, None, 30]


@pytest.mark.parametrize("seed", range(3))
def test_two_gpus_are_counted_apart(seed: int):
    counters = Counters()
    told = [
        counters.correct(Reading(f"GPU-{gpu}", "n", "m", energy_joules=float(gpu * 100 + at + seed)), float(at))
        for at, gpu in itertools.product(range(3), range(2))
    ]
    assert [each.energy_joules for each in told] == [seed, 100 + seed, 1 + seed, 101 + seed, 2 + seed, 102 + seed]
