"""Tidegauge itself: the store and the background loops."""

from dashboards.grafana import Row, rate, timeseries
from dashboards.queries import quantiles

STORE = Row(
    "Store and loops",
    [
        timeseries(
            "Commit duration",
            "Group commits; a slow disk shows here first.",
            quantiles("tidegauge_store_commit_duration_seconds", ""),
            warn=0.5,
            bad=2,
            next="Queue of the writer",
        ),
        rate(
            "Commits",
            "Errors stop acknowledgements: disk full or read-only?",
            "tidegauge_store_commits_total",
            "outcome",
            next="Disk",
        ),
        rate("Rows", "What fills the disk, by table.", "tidegauge_store_rows_total", "table", stack=True, next="Disk"),
        timeseries(
            "Disk",
            "When free space nears the size of a day's rows, shorten retention.",
            {
                "database": "max(tidegauge_store_bytes)",
                "reusable in it": "max(tidegauge_store_reusable_bytes)",
                "its bound": "max(tidegauge_store_limit_bytes) > 0",
                "free": "min(tidegauge_store_disk_free_bytes)",
            },
            next="Rows",
        ),
        timeseries(
            "Store trouble",
            "1 while it lasts. All but `corrupt` refuse what comes.",
            "max by (trouble) (tidegauge_store_trouble)",
            legend="{{trouble}}",
            bad=1,
            next="Disk",
        ),
        rate(
            "Rows deleted",
            "By retention: past their time (`age`), or for the bound on the size (`size`).",
            "tidegauge_store_deleted_rows_total",
            "reason",
            next="Disk",
        ),
        timeseries(
            "Remote write lag",
            "Age of the oldest samples that wait on disk.",
            "max by (endpoint) (tidegauge_remote_write_lag_seconds)",
            legend="{{endpoint}}",
            warn=60,
            bad=300,
            next="Remote write queue",
        ),
        timeseries(
            "Remote write queue",
            "At `max_queue_bytes` the oldest samples go.",
            "max by (endpoint) (tidegauge_remote_write_queue_bytes)",
            legend="{{endpoint}}",
            next="Remote write",
        ),
        timeseries(
            "Eval backlog",
            "Requests not yet looked at. Growing: the evaluators are slower than the traffic.",
            {"evaluators": "max(tidegauge_eval_backlog)", "judge": "max(tidegauge_judge_backlog)"},
            warn=1000,
            bad=10000,
            next="Eval quality / Evaluations",
        ),
        rate(
            "Loop errors",
            "Background work that failed unexpectedly; the log has the traceback.",
            "tidegauge_loop_errors_total",
            "loop",
            bad=0.01,
            next="Commits",
        ),
        rate(
            "Label values folded",
            "Values past the bound, served as `other`: raise it or mend the label.",
            "tidegauge_labels_folded_total",
            "label",
            next="Spans",
        ),
        rate(
            "Rows of state dropped",
            "Engine state the store did not take: requests of that time lack a cause.",
            "tidegauge_engine_rows_dropped_total",
            "reason",
            next="GPU rows of state dropped",
        ),
        rate(
            "GPU rows of state dropped",
            "As beside, of the GPUs.",
            "tidegauge_gpu_rows_dropped_total",
            "reason",
            next="Commits",
        ),
        rate(
            "Incidents",
            "Alerts that came over the webhook. None while Prometheus fires: see Alertmanager's receiver.",
            "tidegauge_incidents_total",
            "status",
            next="Loop errors",
        ),
    ],
)
