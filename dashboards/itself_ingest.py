"""Tidegauge itself: how telemetry comes in, and whether targets answer."""

from dashboards.grafana import Row, rate, timeseries
from dashboards.queries import quantiles

TARGET = '{target=~"$target"}'

INGEST = Row(
    "Ingest",
    [
        rate(
            "Spans",
            "By what became of them. `overloaded` was refused and comes again; `failed` is the store. Next: the queue.",
            "tidegauge_ingest_spans_total",
            "status",
            stack=True,
            next="Queue of the writer",
        ),
        rate(
            "Export requests",
            "By transport and outcome. `malformed` is a sender's fault; the log says which.",
            "tidegauge_ingest_requests_total",
            "transport, outcome",
            next="Spans rejected",
        ),
        timeseries(
            "Ingest lag",
            "From a span's end to its commit. Senders batch for some seconds; more than a minute is a backlog.",
            "max(tidegauge_ingest_lag_seconds)",
            legend="lag",
            warn=60,
            bad=300,
            next="Queue of the writer",
        ),
        timeseries(
            "Queue of the writer",
            "Batches that wait for a commit. Steadily above zero: the disk is too slow. Next: commits.",
            "max(tidegauge_ingest_queue_batches)",
            legend="batches",
            warn=10,
            bad=100,
            next="Commit duration",
        ),
        timeseries(
            "Time to acknowledge",
            "What senders wait; past their timeout they send again.",
            quantiles("tidegauge_ingest_ack_duration_seconds", "transport"),
            warn=2,
            bad=10,
            next="Commit duration",
        ),
        timeseries(
            "Bytes in flight",
            "Bodies being decoded or waiting; at the bound new ones are refused.",
            "max(tidegauge_ingest_inflight_bytes)",
            legend="bytes",
            next="Queue of the writer",
        ),
        rate(
            "Spans rejected",
            "Their senders must mend them; the log has samples.",
            "tidegauge_ingest_rejected_spans_total",
            "reason",
            next="Export requests",
        ),
        rate(
            "Attributes cut",
            "Longer than `max_attribute` allows: scores of cut answers mislead.",
            "tidegauge_ingest_truncated_attributes_total",
            next="Spans",
        ),
        rate(
            "Redactions",
            "What was replaced before it was stored, by detector. A step up: a client sends what it should not.",
            "tidegauge_redactions_total",
            "detector",
            next="Spans",
        ),
        rate(
            "Rows without content",
            "As `privacy` says for their tenant; their answers cannot be scored.",
            "tidegauge_content_withheld_total",
            "capture",
            next="Spans",
        ),
        rate(
            "Log records",
            "By what became of them. `discarded` is what `otlp.logs` leaves out. Next: why.",
            "tidegauge_ingest_log_records_total",
            "status",
            stack=True,
            next="Log records left out",
        ),
        rate(
            "Log records left out",
            "`no_trace` and `not_genai` are by configuration; the rest their senders must mend.",
            "tidegauge_ingest_left_out_log_records_total",
            "reason",
            next="Export requests",
        ),
        rate(
            "Points of OTLP metrics",
            "By what became of them. They are served on /metrics, not stored.",
            "tidegauge_ingest_metric_points_total",
            "status",
            stack=True,
            next="Points of OTLP metrics left out",
        ),
        rate(
            "Points of OTLP metrics left out",
            "`out_of_order`: two senders have the same service.instance.id, or none.",
            "tidegauge_ingest_left_out_metric_points_total",
            "reason",
            next="Series of OTLP metrics",
        ),
        timeseries(
            "Series of OTLP metrics",
            "Served on /metrics as they come; at `otlp.metrics.max_series` new ones are refused.",
            "max(tidegauge_otlp_series)",
            legend="series",
            next="Points of OTLP metrics left out",
        ),
        rate(
            "Contents from log records",
            "What log events say of spans. `unclaimed`: no span came for it; is the application's trace exporter on?",
            "tidegauge_content_events_total",
            "outcome",
            next="Contents that wait for a span",
        ),
        timeseries(
            "Contents that wait for a span",
            "Log events that came before their span. Steadily high: spans are sampled out, or go elsewhere.",
            "max(tidegauge_content_waiting)",
            legend="spans",
            next="Spans",
        ),
    ],
)
