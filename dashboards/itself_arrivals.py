"""Tidegauge itself: what comes to its doors, and what is turned away there."""

from dashboards.grafana import Row, rate, timeseries

ARRIVALS = Row(
    "Arrivals",
    [
        rate(
            "Requests by path",
            "Where senders send to. `other` is a base path of its own, or a path that is none. Next: export requests.",
            "tidegauge_ingest_received_requests_total",
            "transport, route",
            next="Export requests",
        ),
        timeseries(
            "Open requests",
            "Being decoded, or waiting for their commit; received = answered + open, in every scrape.",
            "sum by (transport) (tidegauge_ingest_open_requests)",
            legend="{{transport}}",
            next="Time to acknowledge",
        ),
        rate(
            "Received",
            "Spans, log records and metric points, whatever became of them. Next: spans.",
            "tidegauge_ingest_received_total",
            "signal",
            next="Spans",
        ),
        timeseries(
            "Waiting for their commit",
            "Received = counted by status + waiting, in every scrape. Steadily high: the store is slow.",
            "sum by (signal) (tidegauge_ingest_waiting)",
            legend="{{signal}}",
            next="Queue of the writer",
        ),
        rate(
            "Tenants overridden",
            "Data that named another tenant than its key's: a wrong key, or a wrong attribute.",
            "tidegauge_ingest_tenant_overridden_total",
            "signal",
            next="Spans rejected",
        ),
        rate(
            "Connections refused",
            "`too_many` at once, or `idle`: opened, and no request sent.",
            "tidegauge_connections_refused_total",
            "listener, reason",
            next="Requests by path",
        ),
    ],
)
