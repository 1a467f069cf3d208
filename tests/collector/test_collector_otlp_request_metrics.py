"""Metrics from committed requests."""

from typing import Any

import pyarrow as pa
from otlp_support import counted
from prometheus_client import CollectorRegistry

from catalog.instruments import Instruments
from collector.otlp.settings import RequestMetricsSettings
from collector.request_metrics import RequestMetrics
from store.tables import SPANS

ROW = {
    "is_request": True,
    "vantage": "client",
    "request_model": "asked",
    "response_model": "answered",
    "tenant": "bank",
    "operation": "chat",
    "service": "bot",
    "status": "ok",
    "duration_s": 2.0,
    "time_to_first_token_s": 0.5,
    "input_tokens": 10,
    "output_tokens": 20,
}
LABELS = {"model": "answered", "tenant": "bank", "operation": "chat", "service": "bot"}


def observed(*rows: dict[str, Any], **bounds: int) -> Instruments:
    metrics = Instruments(CollectorRegistry())
    table = pa.Table.from_pylist([ROW | row for row in rows], schema=SPANS)
    RequestMetrics(metrics, RequestMetricsSettings(**bounds)).observe(table)
    return metrics


def test_a_request_is_counted_once_in_every_family() -> None:
    metrics = observed({}, {"status": "error", "output_tokens": None, "time_to_first_token_s": None}, {"duration_s": 4})
    found = {
        "ok": counted(metrics, "tidegauge_requests_total", **LABELS, status="ok"),
        "error": counted(metrics, "tidegauge_requests_total", **LABELS, status="error"),
        "duration": counted(metrics, "gen_ai_client_operation_duration_seconds_sum", **LABELS),
        "first": counted(metrics, "gen_ai_client_time_to_first_token_seconds_count", **LABELS),
        "input": counted(metrics, "gen_ai_client_token_usage_sum", **LABELS, token_type="input"),
        "output": counted(metrics, "gen_ai_client_token_usage_sum", **LABELS, token_type="output"),
    }
    assert found == {"ok": 2, "error": 1, "duration": 8, "first": 2, "input": 30, "output": 40}


def test_spans_that_stand_for_no_request_are_left_out() -> None:
    metrics = observed({"is_request": False}, {"is_request": None})
    assert counted(metrics, "tidegauge_requests_total", **LABELS, status="ok") == 0


def test_an_engines_times_are_no_clients_but_its_tokens_count() -> None:
    metrics = observed({"vantage": "engine"})
    assert counted(metrics, "gen_ai_client_operation_duration_seconds_count", **LABELS) == 0
    assert counted(metrics, "gen_ai_client_token_usage_sum", **LABELS, token_type="input") == 10


def test_label_values_past_the_bound_are_other_and_counted() -> None:
    metrics = observed({}, {"tenant": "b"}, {"tenant": "c"}, {"tenant": "c"}, {"tenant": "bank"}, max_tenants=1)
    other = counted(metrics, "tidegauge_requests_total", **(LABELS | {"tenant": "other"}), status="ok")
    assert (other, counted(metrics, "tidegauge_labels_folded_total", label="tenant")) == (3, 3)
    assert counted(metrics, "tidegauge_requests_total", **LABELS, status="ok") == 2


def test_an_endless_label_value_is_other_and_an_unknown_one_is_empty() -> None:
    metrics = observed({"response_model": "m" * 1000, "tenant": None})
    labels = LABELS | {"model": "other", "tenant": ""}
    assert counted(metrics, "tidegauge_requests_total", **labels, status="ok") == 1


def test_the_requested_model_stands_in_where_no_answer_came() -> None:
    metrics = observed({"response_model": None})
    assert counted(metrics, "tidegauge_requests_total", **(LABELS | {"model": "asked"}), status="ok") == 1
