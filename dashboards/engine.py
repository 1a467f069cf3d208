"""One engine from the inside: why requests are slow."""

from dashboards.grafana import Dashboard, Row, Variable, heatmap, timeseries
from dashboards.queries import ENGINE, ONE_ENGINE, increases, mean, per_second, quantile, quantiles

BY = "target, engine, model"
LEGEND = "{{model}} {{target}}"
TTFT = "gen_ai_server_time_to_first_token_seconds"
TPOT = "gen_ai_server_time_per_output_token_seconds"
GAP = "llm_engine_inter_token_latency_seconds"
QUEUE = "llm_engine_queue_time_seconds"
PREFILL = "llm_engine_prefill_time_seconds"
DECODE = "llm_engine_decode_time_seconds"

SATURATION = Row(
    "Saturation",
    [
        timeseries(
            "Queue",
            "Waiting comes on top of running. It grows while running is flat: the batch or the cache is full.",
            {
                "waiting " + LEGEND: f"sum by ({BY}) (llm_engine_requests_waiting{ENGINE})",
                "running " + LEGEND: f"sum by ({BY}) (llm_engine_requests_running{ENGINE})",
            },
            warn=20,
            bad=100,
            next="KV cache in use",
        ),
        timeseries(
            "KV cache in use",
            "Near 100 % new requests wait, or preempt running ones. Next: preemptions.",
            f"max by ({BY}) (llm_engine_kv_cache_usage_ratio{ENGINE})",
            legend=LEGEND,
            warn=0.85,
            bad=0.95,
            next="Preemptions",
        ),
        timeseries(
            "Preemptions",
            "Running requests put back to make room: their work is done twice. Lower the batch limit or add memory.",
            per_second("llm_engine_preemptions_total", BY, ENGINE),
            legend=LEGEND,
            warn=0.1,
            bad=1,
            next="Time per output token",
        ),
    ],
)

LATENCY = Row(
    "Latency",
    [
        timeseries(
            "Time to first token",
            "Queue time and prefill time together. Next: which of the two.",
            quantiles(TTFT, "model, target, vantage", ENGINE),
            warn=1,
            bad=5,
            next="Queue time",
        ),
        timeseries(
            "Queue time",
            "Time before a request was first scheduled. High: too little capacity. Low: look at prefill.",
            quantiles(QUEUE, "model, target", ENGINE),
            next="Prefill and decode time, mean",
        ),
        timeseries(
            "Time per output token",
            "Mean pace of each answer, one sample a request. It grows with the batch and with preemptions.",
            quantiles(TPOT, "model, target, vantage", ENGINE),
            next="Gap between tokens",
        ),
        timeseries(
            "Gap between tokens",
            "One sample a gap, so long answers weigh more. A p99 far over p50 is stutter: long prefills in between.",
            quantiles(GAP, "model, target", ENGINE),
            next="Prompt tokens of a request, p95",
        ),
        timeseries(
            "Prefill and decode time, mean",
            "Where a running request spends its time. Prefill follows the prompts, decode the answers and the batch.",
            {"prefill " + LEGEND: mean(PREFILL, BY, ENGINE), "decode " + LEGEND: mean(DECODE, BY, ENGINE)},
            next="GPU / What the card is bound by",
        ),
    ],
)

WORK = Row(
    "Work",
    [
        timeseries(
            "Tokens",
            "Throughput. Many prompt tokens slow down everybody's answers.",
            {
                "prompt " + LEGEND: per_second("llm_engine_prompt_tokens_total", BY, ENGINE),
                "generated " + LEGEND: per_second("llm_engine_generation_tokens_total", BY, ENGINE),
            },
            next="Prompt tokens of a request, p95",
        ),
        timeseries(
            "Prefix cache hit ratio",
            "Share of prompt tokens that need no prefill. A drop after a release: the prompts' common prefix changed.",
            per_second("llm_engine_prefix_cache_hits_total", BY, ENGINE)
            + " / "
            + per_second("llm_engine_prefix_cache_queries_total", BY, ENGINE),
            legend=LEGEND,
            next="Time to first token",
        ),
        timeseries(
            "Finish reasons",
            "`length` cuts answers off, `abort` is clients that gave up, `error` is the engine's own.",
            per_second("llm_engine_requests_total", "model, target, finish_reason", ENGINE),
            legend="{{finish_reason}} {{model}} {{target}}",
            unit="reqps",
            stack=True,
            next="Requests and tenants / Failed requests",
        ),
        timeseries(
            "Prompt tokens of a request, p95",
            "Long prompts take prefill time and cache from all others.",
            quantile(0.95, "llm_engine_request_prompt_tokens", BY, ENGINE),
            legend=LEGEND,
            next="KV cache in use",
        ),
    ],
)

DISTRIBUTION = Row(
    "Distribution, target by target",
    [
        heatmap(
            "Time to first token, $target",
            "Two bands are two kinds of requests (cached and not, short and long prompts): quantiles mislead then.",
            increases(TTFT, ONE_ENGINE),
            repeat="target",
            next="Prefix cache hit ratio",
        )
    ],
)

DASHBOARD = Dashboard(
    key="engine",
    description="One engine from the inside: queue, cache, latency by stage, tokens.",
    variables=[
        Variable("target", "llm_engine_requests_running", "target"),
        Variable("model", "llm_engine_requests_running", "model"),
    ],
    rows=[SATURATION, LATENCY, WORK, DISTRIBUTION],
)
