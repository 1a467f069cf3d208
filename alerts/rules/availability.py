"""Is anybody there, and do requests succeed."""

from alerts.rule import Case, Rule, Severity

_UP = 'tidegauge_target_up{target="gpu-7",engine="vllm"}'
_TARGET = {"target": "gpu-7", "engine": "vllm"}
_ENGINE = 'target="gpu-7",engine="vllm",model="llama"'
_ENGINE_LABELS = {"target": "gpu-7", "engine": "vllm", "model": "llama"}
_CLIENT = 'model="llama",tenant="bank",operation="chat",service="support"'
_CLIENT_LABELS = {"model": "llama", "tenant": "bank", "service": "support"}

RULES = (
    Rule(
        name="LLMTargetDown",
        expr="tidegauge_target_up == 0",
        hold="1m",
        severity=Severity.PAGE,
        summary="{{ $labels.engine }} at {{ $labels.target }} does not answer scrapes; its users probably get errors",
        description="Every scrape of {{ $labels.target }} has failed for a minute. The reason is a label of the "
        "scrape failures; requests that it serves now show in the console.",
        runbook="target-down",
        dashboard="fleet",
        scope=("target",),
        fires=(Case("the target is gone", {_UP: "1x4 0x20"}, "5m", _TARGET),),
        silent=(
            Case("the target answers", {_UP: "1x24"}, "5m"),
            Case("one scrape fails", {_UP: "1x8 0x1 1x12"}, "3m"),
        ),
    ),
    Rule(
        name="LLMTargetScrapesFailing",
        # A target that is down has its own page; here it answers, but not every time.
        expr="""
            sum by (target, reason) (increase(tidegauge_scrape_failures_total[{10m}])) > 5
            and on (target)
            max by (target) (tidegauge_target_up) == 1
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.target }}: {{ $value | humanize }} scrapes failed ({{ $labels.reason }})",
        description="The target answers, but some scrapes fail: charts have gaps and causes may be missed.",
        runbook="scrapes-failing",
        dashboard="itself",
        scope=("target",),
        fires=(
            Case(
                "a third of the scrapes time out",
                {'tidegauge_scrape_failures_total{target="gpu-7",reason="timeout"}': "0+1x80", _UP: "1x80"},
                "18m",
                {"target": "gpu-7", "reason": "timeout"},
                value=40,
            ),
        ),
        silent=(
            Case(
                "the target is down, which is a page of its own",
                {'tidegauge_scrape_failures_total{target="gpu-7",reason="timeout"}': "0+1x80", _UP: "0x80"},
                "18m",
            ),
            Case(
                "two failures",
                {'tidegauge_scrape_failures_total{target="gpu-7",reason="timeout"}': "0x40 1 2x40", _UP: "1x80"},
                "18m",
            ),
        ),
    ),
    Rule(
        name="LLMEngineNoTraffic",
        expr="""
            sum by (target, engine, model) (increase(llm_engine_requests_total[{10m}])) == 0
            and
            sum by (target, engine, model) (increase(llm_engine_requests_total[{1h}] offset {10m}))
              > {minimum_requests*5}
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $labels.model }} on {{ $labels.target }} finishes no requests any more, and did within the hour",
        description="The engine answers scrapes and finishes nothing: traffic goes elsewhere, clients cannot reach it, "
        "or it hangs.",
        runbook="no-traffic",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "traffic stops",
                {
                    f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}': "0+{minimum_requests}x200 "
                    "{minimum_requests*200}x80"
                },
                "68m",
                _ENGINE_LABELS,
            ),
        ),
        silent=(
            Case(
                "traffic goes on",
                {f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}': "0+{minimum_requests}x300"},
                "68m",
            ),
            Case(
                "there never was any",
                {f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}': "0x300"},
                "68m",
            ),
        ),
    ),
    Rule(
        name="LLMRequestErrorsHigh",
        expr="""
            (
              sum by (model, service, tenant) (increase(tidegauge_requests_total{status="error"}[{5m}]))
              /
              sum by (model, service, tenant) (increase(tidegauge_requests_total[{5m}]))
            ) > {error_ratio}
            and
            sum by (model, service, tenant) (increase(tidegauge_requests_total[{5m}])) > {minimum_requests}
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of {{ $labels.tenant }}'s requests from {{ $labels.service }} "
        "to {{ $labels.model }} fail",
        description="One tenant may fail while the whole looks well, so this looks at each. "
        "The objective over all tenants pages by its error budget.",
        runbook="request-errors",
        dashboard="requests",
        scope=("model", "service", "tenant"),
        filters={"status": "error"},
        fires=(
            Case(
                "half of a tenant's requests fail",
                {
                    f'tidegauge_requests_total{{{_CLIENT},status="ok"}}': "0+{minimum_requests}x40",
                    f'tidegauge_requests_total{{{_CLIENT},status="error"}}': "0+{minimum_requests}x40",
                },
                "9m",
                _CLIENT_LABELS,
                value=0.5,
            ),
        ),
        silent=(
            Case(
                "one in a thousand fails",
                {
                    f'tidegauge_requests_total{{{_CLIENT},status="ok"}}': "0+999x40",
                    f'tidegauge_requests_total{{{_CLIENT},status="error"}}': "0+1x40",
                },
                "9m",
            ),
            Case(
                "one of two requests fails",
                {
                    f'tidegauge_requests_total{{{_CLIENT},status="ok"}}': "0x10 1x30",
                    f'tidegauge_requests_total{{{_CLIENT},status="error"}}': "0x10 1x30",
                },
                "6m",
            ),
        ),
    ),
    Rule(
        name="LLMEngineRequestsFail",
        expr="""
            (
              sum by (target, engine, model) (increase(llm_engine_requests_total{finish_reason="error"}[{5m}]))
              /
              sum by (target, engine, model) (increase(llm_engine_requests_total[{5m}]))
            ) > {error_ratio}
            and
            sum by (target, engine, model) (increase(llm_engine_requests_total[{5m}])) > {minimum_requests}
        """,
        hold="2m",
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of the requests on {{ $labels.target }} end in an engine error",
        description="{{ $labels.model }} itself gives up on requests: look at the engine's log before the clients'.",
        runbook="request-errors",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "one in four ends in an error",
                {
                    f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}': "0+30x40",
                    f'llm_engine_requests_total{{{_ENGINE},finish_reason="error"}}': "0+10x40",
                },
                "9m",
                _ENGINE_LABELS,
                value=0.25,
            ),
        ),
        silent=(
            Case(
                "answers end by length or stop",
                {
                    f'llm_engine_requests_total{{{_ENGINE},finish_reason="stop"}}': "0+30x40",
                    f'llm_engine_requests_total{{{_ENGINE},finish_reason="length"}}': "0+30x40",
                },
                "9m",
            ),
        ),
    ),
    Rule(
        name="LLMEngineRestarts",
        expr="max by (target, engine, model) (changes(llm_engine_process_start_time_seconds[{30m}])) > 1",
        severity=Severity.TICKET,
        summary="{{ $labels.target }} restarted {{ $value | humanize }} times in half an hour",
        description="Each restart drops the requests that ran and takes minutes of loading {{ $labels.model }}.",
        runbook="engine-restarts",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "three starts",
                {f"llm_engine_process_start_time_seconds{{{_ENGINE}}}": "10x10 20x10 30x10 40x20"},
                "10m",
                _ENGINE_LABELS,
                value=3,
            ),
        ),
        silent=(
            Case("a rollout", {f"llm_engine_process_start_time_seconds{{{_ENGINE}}}": "10x10 20x40"}, "10m"),
            Case("it runs", {f"llm_engine_process_start_time_seconds{{{_ENGINE}}}": "10x40"}, "10m"),
        ),
    ),
    Rule(
        name="LLMEngineCorruptedRequests",
        expr="sum by (target, engine, model) (increase(llm_engine_corrupted_requests_total[{10m}])) > 0",
        severity=Severity.TICKET,
        summary="{{ $labels.target }} computes NaN for {{ $labels.model }}: users get garbage",
        description="{{ $value | humanize }} requests had NaN in their logits. One GPU with silent memory errors, a "
        "broken kernel or a bad quantisation does this; the requests count as successful.",
        runbook="corrupted-requests",
        dashboard="engine",
        scope=("model", "target"),
        fires=(
            Case(
                "NaN in some requests",
                {f"llm_engine_corrupted_requests_total{{{_ENGINE}}}": "0x4 0+2x36"},
                "10m",
                _ENGINE_LABELS,
                value=70,
            ),
        ),
        silent=(
            Case("none ever", {f"llm_engine_corrupted_requests_total{{{_ENGINE}}}": "0x40"}, "10m"),
            Case("some last week", {f"llm_engine_corrupted_requests_total{{{_ENGINE}}}": "12x40"}, "10m"),
        ),
    ),
)
