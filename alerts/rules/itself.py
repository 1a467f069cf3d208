"""Does Tidegauge itself work: what it does not see, nobody is told of."""

from alerts.rule import Case, Rule, Severity


def _one(expression: str, values: str) -> dict[str, str]:
    return {expression: values}


RULES = (
    Rule(
        name="TidegaugeDown",
        # Not `absent()`: in a backtest over data without Tidegauge's own series that would fire from the first second.
        expr="""
            max by (job, instance) (present_over_time(tidegauge_build_info[{6h}]))
            unless
            max by (job, instance) (tidegauge_build_info)
        """,
        hold="1m",
        severity=Severity.PAGE,
        summary="Tidegauge at {{ $labels.instance }} is gone: nobody watches the engines",
        description="Prometheus scraped it within the last hours and cannot any more. No alert about engines, GPUs, "
        "quality or drift can fire until it is back.",
        runbook="tidegauge-down",
        dashboard="itself",
        fires=(
            Case(
                "it was there and is gone",
                _one('tidegauge_build_info{version="1",job="tidegauge",instance="a"}', "1x8 stale"),
                "5m",
                {"job": "tidegauge", "instance": "a"},
            ),
        ),
        silent=(
            Case("it runs", _one('tidegauge_build_info{version="1",job="tidegauge",instance="a"}', "1x24"), "5m"),
            Case(
                "it was upgraded",
                {
                    'tidegauge_build_info{version="1",job="tidegauge",instance="a"}': "1x8 stale",
                    'tidegauge_build_info{version="2",job="tidegauge",instance="a"}': "_x9 1x20",
                },
                "5m",
            ),
        ),
    ),
    Rule(
        name="TidegaugeIngestLag",
        expr="""
            tidegauge_ingest_lag_seconds > {ingest_lag_seconds}
            and on (job, instance)
            sum by (job, instance) (increase(tidegauge_ingest_spans_total{status="stored"}[{5m}])) > 0
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="Spans are committed {{ $value | humanizeDuration }} after they end",
        description="Scores, drift and the request log lag as much. Exporters that batch for long, clocks that differ, "
        "or a store that cannot keep up.",
        runbook="ingest-lag",
        dashboard="itself",
        fires=(
            Case(
                "spans come late",
                {
                    "tidegauge_ingest_lag_seconds": "{ingest_lag_seconds*2}x40",
                    'tidegauge_ingest_spans_total{status="stored"}': "0+10x40",
                },
                "9m",
                value=120,
            ),
        ),
        silent=(
            Case(
                "nothing has come since",
                {
                    "tidegauge_ingest_lag_seconds": "{ingest_lag_seconds*2}x40",
                    'tidegauge_ingest_spans_total{status="stored"}': "10x40",
                },
                "9m",
            ),
        ),
    ),
    Rule(
        name="TidegaugeSpansLost",
        expr="""
            (
              sum by (status) (increase(tidegauge_ingest_spans_total{status=~"rejected|failed"}[{10m}]))
              / on () group_left ()
              sum (increase(tidegauge_ingest_spans_total[{10m}]))
            ) > 0.01
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $value | humanizePercentage }} of the spans received are not stored ({{ $labels.status }})",
        description="They were refused with a partial success, so their exporters do not send them again.",
        runbook="spans-lost",
        dashboard="itself",
        fires=(
            Case(
                "a tenth is rejected",
                {
                    'tidegauge_ingest_spans_total{status="stored"}': "0+90x80",
                    'tidegauge_ingest_spans_total{status="rejected"}': "0+10x80",
                },
                "17m",
                {"status": "rejected"},
                value=0.1,
            ),
        ),
        silent=(
            Case(
                "duplicates are no loss",
                {
                    'tidegauge_ingest_spans_total{status="stored"}': "0+90x80",
                    'tidegauge_ingest_spans_total{status="duplicate"}': "0+90x80",
                },
                "17m",
            ),
        ),
    ),
    Rule(
        name="TidegaugeExportsRefused",
        expr="""
            sum by (transport, outcome) (increase(
              tidegauge_ingest_requests_total{outcome=~"malformed|too_large|unsupported|not_found|unauthorized|incomplete|error"}[{10m}]
            )) > 10
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} exports over {{ $labels.transport }} refused: {{ $labels.outcome }}",
        description="Some client sends what is not taken; its spans are missing from everything.",
        runbook="spans-lost",
        dashboard="itself",
        fires=(
            Case(
                "a client without a key",
                _one('tidegauge_ingest_requests_total{transport="http",outcome="unauthorized"}', "0+1x80"),
                "17m",
                {"transport": "http", "outcome": "unauthorized"},
                value=40,
            ),
        ),
        silent=(
            Case(
                "all are taken",
                _one('tidegauge_ingest_requests_total{transport="http",outcome="accepted"}', "0+9x80"),
                "17m",
            ),
        ),
    ),
    Rule(
        name="TidegaugeOverloaded",
        expr='sum (increase(tidegauge_ingest_requests_total{outcome="overloaded"}[{5m}])) > 0',
        hold="5m",
        severity=Severity.TICKET,
        summary="Tidegauge sheds load: {{ $value | humanize }} exports were told to come again",
        description="The store's queue is full. Exporters retry for a while and then drop.",
        runbook="tidegauge-overloaded",
        dashboard="itself",
        fires=(
            Case(
                "overloaded for long",
                _one('tidegauge_ingest_requests_total{transport="http",outcome="overloaded"}', "0+5x60"),
                "12m",
                value=100,
            ),
        ),
        silent=(
            Case(
                "one short burst",
                _one('tidegauge_ingest_requests_total{transport="http",outcome="overloaded"}', "0x4 9x60"),
                "12m",
            ),
        ),
    ),
    Rule(
        name="TidegaugeCommitErrors",
        expr='sum (increase(tidegauge_store_commits_total{outcome="error"}[{5m}])) > 0',
        hold="30s",
        severity=Severity.PAGE,
        summary="Tidegauge cannot write: {{ $value | humanize }} commits failed",
        description="What came with them was not acknowledged; exporters keep it for minutes at most. A full disk, a "
        "read-only filesystem, or a damaged database.",
        runbook="commit-errors",
        dashboard="itself",
        fires=(
            Case(
                "the disk is full", _one('tidegauge_store_commits_total{outcome="error"}', "0x4 0+3x40"), "6m", value=57
            ),
        ),
        silent=(Case("commits succeed", _one('tidegauge_store_commits_total{outcome="ok"}', "0+9x40"), "6m"),),
    ),
    Rule(
        name="TidegaugeEvalBacklogGrows",
        expr="tidegauge_eval_backlog > {eval_backlog} and deriv(tidegauge_eval_backlog[{10m}]) > 0",
        hold="10m",
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} requests wait to be scored, and more every minute",
        description="Scores, their alerts and drift lag behind. Lower a policy's rate, or give the judge more room.",
        runbook="eval-backlog",
        dashboard="itself",
        fires=(
            Case("it grows", _one("tidegauge_eval_backlog", "{eval_backlog*2}+{eval_backlog}x80"), "18m", value=370000),
        ),
        silent=(
            Case("it drains", _one("tidegauge_eval_backlog", "{eval_backlog*200}-{eval_backlog}x80"), "18m"),
            Case("it is small", _one("tidegauge_eval_backlog", "3x80"), "18m"),
        ),
    ),
    Rule(
        name="TidegaugeListenerDown",
        expr="tidegauge_listener_up == 0",
        hold="2m",
        severity=Severity.TICKET,
        summary="Tidegauge does not listen for {{ $labels.listener }}: somebody else has the address",
        description="Whatever is sent there goes to the other program.",
        runbook="listener-down",
        dashboard="itself",
        fires=(
            Case("taken", _one('tidegauge_listener_up{listener="otlp_grpc"}', "0x20"), "4m", {"listener": "otlp_grpc"}),
        ),
        silent=(Case("ours", _one('tidegauge_listener_up{listener="otlp_grpc"}', "1x20"), "4m"),),
    ),
    Rule(
        name="TidegaugeTargetFileUnreadable",
        expr="sum by (job, instance, source) (increase(tidegauge_discovery_errors_total[{15m}])) > 0",
        hold="10m",
        severity=Severity.TICKET,
        summary="Tidegauge cannot read a source of targets ({{ $labels.source }}); its last good answer stays in use",
        description="New engines are not watched. `tidegauge targets` says which source, and why.",
        runbook="target-file",
        dashboard="itself",
        fires=(
            Case(
                "every read fails",
                _one('tidegauge_discovery_errors_total{source="file_sd"}', "0+1x80"),
                "16m",
                {"source": "file_sd"},
            ),
        ),
        silent=(Case("reads succeed", _one('tidegauge_discovery_errors_total{source="file_sd"}', "0x80"), "16m"),),
    ),
    Rule(
        name="TidegaugeLoopErrors",
        expr="sum by (loop) (increase(tidegauge_loop_errors_total[{15m}])) > 3",
        severity=Severity.TICKET,
        summary="Tidegauge's {{ $labels.loop }} loop fails: {{ $value | humanize }} rounds broke off",
        description="The loop goes on and the round's work is lost. This is a bug: the log has the error.",
        runbook="loop-errors",
        dashboard="itself",
        fires=(
            Case(
                "every round fails",
                _one('tidegauge_loop_errors_total{loop="drift"}', "0+1x80"),
                "16m",
                {"loop": "drift"},
                value=60,
            ),
        ),
        silent=(Case("one round failed", _one('tidegauge_loop_errors_total{loop="drift"}', "0x20 1x60"), "16m"),),
    ),
    Rule(
        name="TidegaugeLabelsFolded",
        expr="sum by (label) (increase(tidegauge_labels_folded_total[{1h}])) > 0",
        severity=Severity.INFO,
        summary="More values of {{ $labels.label }} than metrics may have; the rest is served as other",
        description="The store has them all; only metrics, and the alerts on them, merge the rest. Raise the bound if "
        "they are real.",
        runbook="labels-folded",
        dashboard="itself",
        fires=(
            Case("folded", _one('tidegauge_labels_folded_total{label="tenant"}', "0+1x40"), "9m", {"label": "tenant"}),
        ),
        silent=(Case("none folded", _one('tidegauge_labels_folded_total{label="tenant"}', "0x40"), "9m"),),
    ),
    Rule(
        name="TidegaugeGPUCollectErrors",
        expr="sum by (gpu) (increase(tidegauge_gpu_collect_errors_total[{10m}])) > 5",
        hold="5m",
        severity=Severity.TICKET,
        summary="GPU {{ $labels.gpu }} could not be read {{ $value | humanize }} times",
        description="Its charts have gaps, and requests of those seconds have no GPU state.",
        runbook="gpu-lost",
        dashboard="gpu",
        fires=(
            Case(
                "every look fails",
                _one('tidegauge_gpu_collect_errors_total{gpu="GPU-1"}', "0+9x80"),
                "17m",
                {"gpu": "GPU-1"},
                360,
            ),
        ),
        silent=(Case("one failed", _one('tidegauge_gpu_collect_errors_total{gpu="GPU-1"}', "0x20 1x60"), "17m"),),
    ),
    Rule(
        name="TidegaugeRemoteWriteBehind",
        expr="""
            max by (endpoint) (tidegauge_remote_write_lag_seconds) > 300
            or
            sum by (endpoint) (increase(tidegauge_remote_write_samples_total{status=~"dropped|rejected"}[{15m}])) > 0
        """,
        hold="5m",
        severity=Severity.TICKET,
        summary="Remote write to {{ $labels.endpoint }} is behind, or loses samples",
        description="The endpoint is down, slow or refuses samples. What waits is on disk and is sent in order once it "
        "answers; past the queue's bound the oldest samples go.",
        runbook="remote-write-behind",
        dashboard="itself",
        fires=(
            Case(
                "the endpoint is down",
                _one('tidegauge_remote_write_lag_seconds{endpoint="mimir"}', "0+15x80"),
                "17m",
                {"endpoint": "mimir"},
                value=1020,
            ),
        ),
        silent=(Case("it answers", _one('tidegauge_remote_write_lag_seconds{endpoint="mimir"}', "15x80"), "17m"),),
    ),
)
