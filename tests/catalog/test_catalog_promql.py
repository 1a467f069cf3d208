"""The PromQL checker finds what parsing cannot."""

import doctest

import pytest

import catalog.promql
from catalog.promql import check_expression, missing, series_of

TTFT = "gen_ai_server_time_to_first_token_seconds"

GOOD = {
    "quantile_per_engine": f"histogram_quantile(0.95, sum by (le, engine, vantage) (rate({TTFT}_bucket[5m])))",
    "one_engine_by_a_variable": f'sum by (le) (rate({TTFT}_bucket{{target="$target", vantage="engine"}}[5m]))',
    "quantile_of_one_vantage": (
        f'histogram_quantile(0.95, sum by (le, target) (rate({TTFT}_bucket{{vantage="engine"}}[$__rate_interval])))'
    ),
    "optional_label": "max by (target, rank) (llm_engine_kv_cache_usage_ratio)",
    "labels_of_prometheus": 'tidegauge_target_up{job="tidegauge", instance=~"a.*"}',
    "two_sides_alike": (
        "max by (target, model) (llm_engine_kv_cache_usage_ratio) > 0.95"
        " and min_over_time(sum by (target, model) (llm_engine_requests_waiting)[1m:]) > 0"
    ),
    "label_joined_in": (
        "llm_engine_requests_waiting * on (target) group_left (environment)"
        " max by (target, environment) (tidegauge_target_info)"
    ),
    "declared_bucket": 'rate(gen_ai_client_operation_duration_seconds_bucket{le="5.12"}[5m])',
    "infinite_bucket": f'rate({TTFT}_bucket{{le="+Inf"}}[5m])',
    "series_of_prometheus": 'sum by (alertname) (ALERTS{alertstate="firing"}) and on () up == 1',
    "scalar_side": "time() - tidegauge_scrape_last_success_timestamp_seconds > 60",
    "grafana_variables": 'sum by (model) (rate(llm_engine_prompt_tokens_total{model=~"$model"}[$__range])) * 2',
    "label_replace": 'sum by (host) (label_replace(up, "host", "$1", "instance", "(.*):.*"))',
    "fallback": "sum(rate(tidegauge_loop_errors_total[5m])) or vector(0)",
    "mean_of_a_rate": "avg_over_time(rate(llm_engine_prompt_tokens_total[5m])[1h:1m])",
    "top_keeps_labels": "sum by (tenant) (topk(3, tidegauge_eval_score_mean))",
}

BAD = {
    "typing_error": (
        "llm_engine_request_waiting",
        "llm_engine_request_waiting: no such metric; did you mean 'llm_engine_requests_waiting'?",
    ),
    "counter_without_total": (
        "rate(llm_engine_preemptions[5m])",
        "llm_engine_preemptions: no such metric; did you mean 'llm_engine_preemptions_total'?",
    ),
    "engines_own_name": (
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting: no such metric; did you mean 'llm_engine_requests_waiting'?",
    ),
    "histogram_without_suffix": (
        f"rate({TTFT}[5m])",
        f"{TTFT}: a histogram has no sample of its own name, only {TTFT}_bucket, {TTFT}_count, {TTFT}_sum",
    ),
    "unknown_label_in_matcher": (
        'llm_engine_requests_waiting{modl="x"}',
        "modl: llm_engine_requests_waiting{modl=\"x\"} has no such label; did you mean 'model'?",
    ),
    "unknown_label_in_by": (
        "sum by (tennant) (tidegauge_requests_total)",
        "tennant: sum over tidegauge_requests_total has no such label; did you mean 'tenant'?",
    ),
    "label_lost_before": (
        "max by (model) (sum by (target) (llm_engine_requests_waiting))",
        "model: max over llm_engine_requests_waiting has no such label",
    ),
    "unknown_label_in_without": (
        "sum without (tenant) (llm_engine_requests_waiting)",
        "tenant: sum over llm_engine_requests_waiting has no such label",
    ),
    "unknown_label_in_on": (
        "llm_engine_requests_waiting and on (gpu) hw_power_watts",
        "gpu: llm_engine_requests_waiting has no such label",
    ),
    "unknown_label_in_group_left": (
        "llm_engine_requests_waiting * on (target) group_left (region) tidegauge_target_info",
        "region: tidegauge_target_info has no such label; did you mean 'engine'?",
    ),
    "le_outside_bucket": (
        f"sum by (le, model) (rate({TTFT}_count{{vantage='engine'}}[5m]))",
        f"le: sum over {TTFT}_count has no such label",
    ),
    "no_such_bucket": (
        'tidegauge_drift_round_duration_seconds_bucket{le="4.0"}',
        'le="4.0": tidegauge_drift_round_duration_seconds has no such bucket, only 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,'
        " 10.0, 30.0, 60.0, +Inf; did you mean '5.0'?",
    ),
    "bucket_spelled_otherwise": (
        'tidegauge_drift_round_duration_seconds_bucket{le="5"}',
        'le="5": tidegauge_drift_round_duration_seconds has no such bucket, only 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,'
        " 10.0, 30.0, 60.0, +Inf; did you mean '5.0'?",
    ),
    "unknown_buckets": (f'{TTFT}_bucket{{le="0.5"}}', f'le="0.5": the buckets of {TTFT} are not known'),
    "rate_of_gauge": (
        "rate(llm_engine_requests_waiting[5m])",
        "llm_engine_requests_waiting: rate() is for counters, and this is a gauge",
    ),
    "delta_of_counter": (
        "delta(llm_engine_prompt_tokens_total[5m])",
        "llm_engine_prompt_tokens_total: delta() is for gauges, and this counts up: take a rate first",
    ),
    "rate_of_sum": (
        "rate(sum(llm_engine_prompt_tokens_total)[5m:])",
        "rate(sum(llm_engine_prompt_tokens_total)[5m:]): rate() of a subquery sees resets as drops;"
        " aggregate after rate()",
    ),
    "quantile_without_le": (
        "histogram_quantile(0.9, sum by (model) (rate(gen_ai_client_token_usage_bucket[5m])))",
        "histogram_quantile: needs `le` kept: aggregate by (le, ...); did you mean 'le'?",
    ),
    "quantile_of_a_gauge": (
        "histogram_quantile(0.9, llm_engine_requests_waiting)",
        "histogram_quantile: needs the _bucket series of a histogram",
    ),
    "quantile_in_percent": (
        "histogram_quantile(95, rate(gen_ai_client_token_usage_bucket[5m]))",
        "histogram_quantile: a quantile is from 0 to 1, not 95",
    ),
    "engines_merged": (
        "sum by (le, model) (rate(llm_engine_queue_time_seconds_bucket[5m]))",
        "llm_engine_queue_time_seconds_bucket: sum merges the buckets of different engines: keep `engine` or `target`",
    ),
    "vantages_merged": (
        f"sum by (model) (rate({TTFT}_count[5m]))",
        f"{TTFT}_count: sum counts each vantage again: keep `vantage`, or choose one",
    ),
    "sides_never_match": (
        "sum by (model) (llm_engine_requests_running) / llm_engine_requests_waiting",
        "/: llm_engine_requests_running and llm_engine_requests_waiting never match: only one side has engine,"
        " instance, job, target; use on (...)",
    ),
    "not_promql": ("sum(rate(up[5m])", "sum(rate(up[5m]): unclosed left parenthesis"),
}


@pytest.mark.parametrize("expr", GOOD.values(), ids=GOOD.keys())
def test_a_sound_expression_has_no_problem(expr: str) -> None:
    assert check_expression(expr) == []


@pytest.mark.parametrize(("expr", "expected"), BAD.values(), ids=BAD.keys())
def test_each_fault_is_named_with_the_nearest_valid_name(expr: str, expected: str) -> None:
    assert list(map(str, check_expression(expr))) == [expected]


def test_all_faults_of_an_expression_are_returned_together() -> None:
    problems = check_expression('rate(llm_engine_requests_waiting{modl="x"}[5m]) or sum by (gpu) (hw_powr_watts)')
    assert [problem.text for problem in problems] == ["modl", "llm_engine_requests_waiting", "hw_powr_watts"]


def test_recording_rules_are_known_by_their_labels() -> None:
    recorded = {"model:errors:ratio_rate5m": ["model"]}
    assert check_expression("max by (model) (model:errors:ratio_rate5m)", recorded=recorded) == []
    assert [p.text for p in check_expression("max by (tenant) (model:errors:ratio_rate5m)", recorded=recorded)] == [
        "tenant"
    ]


def test_engine_buckets_are_checked_against_those_recorded() -> None:
    expr, buckets = f'rate({TTFT}_bucket{{le="0.5", vantage="engine"}}[5m])', {TTFT: [0.25, 0.5]}
    assert check_expression(expr, buckets=buckets) == []
    assert [p.nearest for p in check_expression(expr.replace("0.5", "0.6"), buckets=buckets)] == ["0.5"]


def test_series_of_gives_each_selector_once_in_order() -> None:
    found = series_of(
        'rate(llm_engine_prompt_tokens_total{model=~"$model"}[5m]) / on () up{job!="x"} + on () up{job!="x"}'
    )
    assert list(map(str, found)) == [
        'llm_engine_prompt_tokens_total{model=~"grafana_variable"}',
        'up{job!="x"}',
    ]


EXPOSED = {
    "llm_engine_requests_waiting": [{"engine": "vllm", "model": "a"}, {"engine": "llama.cpp", "model": "b"}],
    "llm_engine_requests_running": [{"engine": "vllm", "model": "a"}],
}
MISSING = {
    "found": ('llm_engine_requests_waiting{engine="vllm", model=~"$model", job="x"}', []),
    "not_there": ("rate(llm_engine_prompt_tokens_total[5m])", ["llm_engine_prompt_tokens_total: no such series now"]),
    "another_value": (
        'llm_engine_requests_waiting{engine="sglang"}',
        ["llm_engine_requests_waiting{engine=\"sglang\"}: no series has engine='sglang', only 'llama.cpp', 'vllm'"],
    ),
    "not_at_once": (
        'llm_engine_requests_waiting{engine="vllm", model="b"}',
        ['llm_engine_requests_waiting{engine="vllm",model="b"}: no series has all of these labels at once'],
    ),
    "one_side_of_or_is_enough": ("llm_engine_iterations_total or llm_engine_requests_waiting", []),
    "fallback_of_or": ("sum(llm_engine_iterations_total) or vector(0)", []),
    "right_of_unless_may_miss": ("llm_engine_requests_waiting unless llm_engine_iterations_total", []),
    "absent_wants_nothing": ("absent(llm_engine_iterations_total)", []),
    "both_sides_of_a_ratio": (
        "llm_engine_requests_waiting / llm_engine_iterations_total",
        ["llm_engine_iterations_total: no such series now"],
    ),
}


@pytest.mark.parametrize(("expr", "expected"), MISSING.values(), ids=MISSING.keys())
def test_missing_says_why_an_expression_finds_no_data(expr: str, expected: list[str]) -> None:
    assert missing(expr, EXPOSED) == expected


def test_the_modules_example_is_true() -> None:
    assert doctest.testmod(catalog.promql).failed == 0
