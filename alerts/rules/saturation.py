"""Is there more work than the engines can take."""

from alerts.rule import Case, Rule, Severity

_ENGINE = 'target="gpu-7",engine="vllm",model="llama"'
_LABELS = {"target": "gpu-7", "engine": "vllm", "model": "llama"}
_WAITING = f"llm_engine_requests_waiting{{{_ENGINE}}}"
_RUNNING = f"llm_engine_requests_running{{{_ENGINE}}}"
_KV = f"llm_engine_kv_cache_usage_ratio{{{_ENGINE}}}"
_FINISHED = f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}'
_TOKENS = f"llm_engine_generation_tokens_total{{{_ENGINE}}}"

RULES = (
    Rule(
        name="LLMEngineQueueLong",
        # Little's law: a queue over the rate at which requests finish is the wait of one that arrives now.  The
        # histogram of queue times knows it only when it is over.  Nothing finished at all is an infinite wait.
        expr="""
            (
              sum by (target, engine, model) (llm_engine_requests_waiting)
              /
              sum by (target, engine, model) (rate(llm_engine_requests_total[{1m}]))
            ) > {queue_seconds}
            and
            sum by (target, engine, model) (min_over_time(llm_engine_requests_waiting[{1m}])) > 0
        """,
        hold="30s",
        severity=Severity.PAGE,
        summary="{{ $labels.model }} on {{ $labels.target }} is overloaded: a request that arrives now waits about "
        "{{ $value | humanizeDuration }} before it starts",
        description="Requests have queued for all of the last {1m}, and at the rate at which they finish the queue "
        "takes over {queue_seconds} s to drain.",
        runbook="queue-long",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(
            # One request finishes in 15 s.
            Case(
                "the queue grows",
                {_WAITING: "0x4 0+{queue_seconds}x16", _FINISHED: "0+1x40"},
                "4m",
                _LABELS,
                value=330,
            ),
            Case("nothing finishes", {_WAITING: "7x20", _FINISHED: "100x20"}, "3m", _LABELS, value=float("inf")),
        ),
        silent=(
            Case("quiet traffic", {_WAITING: "0x40", _FINISHED: "0+150x40"}, "8m"),
            Case("a burst of half a minute", {_WAITING: "0x8 500x2 0x20", _FINISHED: "0+150x40"}, "3m"),
            Case("a short queue that moves", {_WAITING: "20x40", _FINISHED: "0+{minimum_requests*50}x40"}, "8m"),
        ),
    ),
    Rule(
        name="LLMEngineRequestsWait",
        expr="sum by (target, engine, model) (min_over_time(llm_engine_requests_waiting[{10m}])) > 0",
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }} always has requests waiting",
        description="For over {10m} no moment passed without a queue, and at least {{ $value | humanize }} waited: "
        "the engine is at its limit, and the next burst pages.",
        runbook="queue-long",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(Case("a small queue that never empties", {_WAITING: "3x80"}, "18m", _LABELS, value=3),),
        silent=(Case("a queue that empties", {_WAITING: "9x20 0 9x59"}, "14m"),),
    ),
    Rule(
        name="LLMEngineStalled",
        expr="""
            sum by (target, engine, model) (min_over_time(llm_engine_requests_running[{2m}])) > 0
            and
            sum by (target, engine, model) (increase(llm_engine_generation_tokens_total[{2m}])) == 0
        """,
        hold="1m",
        severity=Severity.PAGE,
        summary="{{ $labels.model }} on {{ $labels.target }} hangs: {{ $value | humanize }} requests run, no tokens",
        description="The engine answers scrapes and has requests in execution, but has generated nothing for {2m}.",
        runbook="engine-stalled",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(Case("requests run, no tokens", {_RUNNING: "4x40", _TOKENS: "1000x40"}, "6m", _LABELS, value=4),),
        silent=(
            Case("tokens come", {_RUNNING: "4x40", _TOKENS: "0+200x40"}, "6m"),
            Case("idle", {_RUNNING: "0x40", _TOKENS: "1000x40"}, "6m"),
        ),
    ),
    Rule(
        name="LLMEngineKVCacheSaturated",
        # A full cache alone is a well-used cache; it hurts only when somebody waits for it.  Each preemption makes
        # room for a moment, so the highest of the minute counts.
        expr="""
            max by (target, engine, model) (max_over_time(llm_engine_kv_cache_usage_ratio[{1m}])) > {kv_cache_ratio}
            and
            sum by (target, engine, model) (min_over_time(llm_engine_requests_waiting[{1m}])) > 0
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }}: KV cache at {{ $value | humanizePercentage }}, "
        "requests wait",
        description="Requests wait for memory, not for compute: shorter contexts, a smaller cache type or another "
        "replica help; more requests at a time do not.",
        runbook="kv-cache-saturated",
        dashboard="engine",
        scope=("model", "target"),
        sort="time_to_first_token",
        fires=(
            Case(
                "cache full now and then, queue grows",
                {_KV: "1 0.9 1 0.8 1 0.9 0.95 1x2 0.9 1x30", _WAITING: "1+2x40"},
                "8m",
                _LABELS,
                value=1,
            ),
        ),
        silent=(
            Case("cache full, nobody waits", {_KV: "1x40", _WAITING: "0x40"}, "8m"),
            Case("requests wait, cache half empty", {_KV: "0.5x40", _WAITING: "5x40"}, "8m"),
        ),
    ),
    Rule(
        name="LLMEnginePreemptionStorm",
        expr="""
            (
              sum by (target, engine, model) (increase(llm_engine_preemptions_total[{5m}]))
              /
              sum by (target, engine, model) (increase(llm_engine_requests_total[{5m}]))
            ) > {preemptions_per_request}
            and
            sum by (target, engine, model) (increase(llm_engine_preemptions_total[{5m}])) > {minimum_requests}
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }}: {{ $value | humanize }} preemptions per finished request",
        description="The engine takes running requests off the GPU to make room in the KV cache and computes them "
        "again: work is done twice and users see pauses.",
        runbook="preemption-storm",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "every request is preempted once",
                {f"llm_engine_preemptions_total{{{_ENGINE}}}": "0+30x40", _FINISHED: "0+30x40"},
                "9m",
                _LABELS,
                value=1,
            ),
        ),
        silent=(
            Case(
                "a preemption now and then",
                {f"llm_engine_preemptions_total{{{_ENGINE}}}": "0+1x40", _FINISHED: "0+150x40"},
                "9m",
            ),
        ),
    ),
    Rule(
        name="LLMEngineRejectsRequests",
        expr="""
            sum by (target, engine, model, reason) (increase(llm_engine_admission_rejections_total[{5m}]))
              > {minimum_requests}
        """,
        hold="1m",
        severity=Severity.TICKET,
        summary="{{ $labels.target }} refused {{ $value | humanize }} requests to {{ $labels.model }} "
        "({{ $labels.reason }})",
        description="The engine's own admission control turns requests away; their clients see errors or retry.",
        runbook="queue-long",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "the queue's bound is reached",
                {f'llm_engine_admission_rejections_total{{{_ENGINE},reason="queue_full"}}': "0+{minimum_requests}x40"},
                "8m",
                {**_LABELS, "reason": "queue_full"},
                value=400,
            ),
        ),
        silent=(
            Case(
                "one refused",
                {f'llm_engine_admission_rejections_total{{{_ENGINE},reason="queue_full"}}': "0x20 1x20"},
                "8m",
            ),
        ),
    ),
)
