"""Do users wait."""

from alerts.rule import Case, Rule, Severity

_ENGINE = 'target="gpu-7",engine="vllm",model="llama"'
_LABELS = {"target": "gpu-7", "engine": "vllm", "model": "llama"}


def _histogram(name: str, low: str, high: str, values: str, vantage: str = "") -> dict[str, str]:
    """All observations between two bounds."""
    labels = _ENGINE + (f',vantage="{vantage}"' if vantage else "")
    return {
        f'{name}_bucket{{{labels},le="{low}"}}': "0x60",
        f'{name}_bucket{{{labels},le="{high}"}}': values,
        f'{name}_bucket{{{labels},le="+Inf"}}': values,
        f"{name}_count{{{labels}}}": values,
    }


_BUSY = "0+{minimum_requests}x60"

RULES = (
    Rule(
        name="LLMTimeToFirstTokenHigh",
        expr="""
            histogram_quantile(0.95, sum by (target, engine, model, vantage, le) (
              rate(gen_ai_server_time_to_first_token_seconds_bucket[{1m}])
            )) > {time_to_first_token_seconds}
            and
            sum by (target, engine, model, vantage) (
              increase(gen_ai_server_time_to_first_token_seconds_count[{1m}])
            ) > {minimum_requests}
        """,
        hold="1m",
        severity=Severity.PAGE,
        summary="{{ $labels.model }} on {{ $labels.target }}: one request in twenty waits over "
        "{{ $value | humanizeDuration }} for its first token",
        description="The 95th percentile over {1m}, as the {{ $labels.vantage }} measures it, is above "
        "{time_to_first_token_seconds} s. Requests that wait still are not in it: look at the queue, too.",
        runbook="time-to-first-token-high",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(
            Case(
                "first tokens take two to four times the threshold",
                _histogram(
                    "gen_ai_server_time_to_first_token_seconds",
                    "{time_to_first_token_seconds*2}",
                    "{time_to_first_token_seconds*4}",
                    _BUSY,
                    "frontend",
                ),
                "5m",
                {**_LABELS, "vantage": "frontend"},
                value=9.75,
            ),
        ),
        silent=(
            Case(
                "first tokens come in half the threshold",
                _histogram(
                    "gen_ai_server_time_to_first_token_seconds",
                    "0.001",
                    "{time_to_first_token_seconds*0.5}",
                    _BUSY,
                    "frontend",
                ),
                "5m",
            ),
            Case(
                "one slow request",
                _histogram(
                    "gen_ai_server_time_to_first_token_seconds",
                    "{time_to_first_token_seconds*2}",
                    "{time_to_first_token_seconds*4}",
                    "0x10 1x50",
                    "frontend",
                ),
                "210s",
            ),
        ),
    ),
    Rule(
        name="LLMQueueTimeHigh",
        expr="""
            histogram_quantile(0.95, sum by (target, engine, model, le) (
              rate(llm_engine_queue_time_seconds_bucket[{5m}])
            )) > {queue_seconds}
            and
            sum by (target, engine, model) (increase(llm_engine_queue_time_seconds_count[{5m}])) > {minimum_requests}
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }}: one request in twenty queues over "
        "{{ $value | humanizeDuration }}",
        description="It has lasted for over {5m}: not a burst, but too little capacity.",
        runbook="queue-long",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(
            Case(
                "requests queue for two to four times the threshold",
                _histogram("llm_engine_queue_time_seconds", "{queue_seconds*2}", "{queue_seconds*4}", _BUSY),
                "12m",
                _LABELS,
                value=7.8,
            ),
        ),
        silent=(
            Case(
                "requests hardly queue",
                _histogram("llm_engine_queue_time_seconds", "0.001", "{queue_seconds*0.1}", _BUSY),
                "12m",
            ),
        ),
    ),
    Rule(
        name="LLMInterTokenLatencyHigh",
        expr="""
            histogram_quantile(0.95, sum by (target, engine, model, le) (
              rate(llm_engine_inter_token_latency_seconds_bucket[{5m}])
            )) > {inter_token_seconds}
            and
            sum by (target, engine, model) (
              increase(llm_engine_inter_token_latency_seconds_count[{5m}])
            ) > {minimum_requests}
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }} stutters: one gap between tokens in twenty is over "
        "{{ $value | humanizeDuration }}",
        description="Batches are too large for the GPU, prefills interrupt decoding, or the clocks are held down.",
        runbook="inter-token-latency-high",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "gaps of two to four times the threshold",
                _histogram(
                    "llm_engine_inter_token_latency_seconds",
                    "{inter_token_seconds*2}",
                    "{inter_token_seconds*4}",
                    _BUSY,
                ),
                "12m",
                _LABELS,
                value=0.975,
            ),
        ),
        silent=(
            Case(
                "text flows",
                _histogram("llm_engine_inter_token_latency_seconds", "0.001", "{inter_token_seconds*0.5}", _BUSY),
                "12m",
            ),
        ),
    ),
)
