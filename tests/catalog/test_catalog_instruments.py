"""Declared families as instruments."""

import pytest
from prometheus_client import CollectorRegistry

from catalog.family import families
from catalog.instruments import Instruments


def test_counters_whose_values_are_known_start_at_zero() -> None:
    registry = CollectorRegistry()
    Instruments(registry).start_at_zero()
    served = {(sample.name, *sample.labels.values()): sample.value for m in registry.collect() for sample in m.samples}
    assert served["tidegauge_store_commits_total", "error"] == 0.0
    assert served["tidegauge_judge_requests_total", "budget_exhausted"] == 0.0


def test_values_are_given_for_labels_that_exist() -> None:
    wrong = {family.name for family in families().values() if not set(family.values) <= set(family.labels)}
    assert wrong == set()


def test_undeclared_metric_is_an_error_at_first_use() -> None:
    with pytest.raises(AttributeError, match="no counter 'tidegauge_nothing_total' is declared"):
        _ = Instruments(CollectorRegistry()).counters.tidegauge_nothing_total
