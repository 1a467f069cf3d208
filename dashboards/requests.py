"""Requests as their clients saw them, by tenant."""

from dashboards.grafana import Dashboard, Row, Variable, heatmap, table, timeseries
from dashboards.queries import CLIENT, increases, mean, per_second, quantile, quantiles

DURATION = "gen_ai_client_operation_duration_seconds"
TTFT = "gen_ai_client_time_to_first_token_seconds"
TOKENS = "gen_ai_client_token_usage"
FAILED = CLIENT.replace("}", ', status="error"}')


def failed_share(by: str) -> str:
    """Share of failed requests by labels; 0 where none failed."""
    everything = per_second("tidegauge_requests_total", by, CLIENT)
    return f"({per_second('tidegauge_requests_total', by, FAILED)} or {everything} * 0) / {everything}"


TRAFFIC = Row(
    "Traffic",
    [
        timeseries(
            "Requests",
            "Each call once, however many spans describe it. Next: who sends more than usual.",
            per_second("tidegauge_requests_total", "tenant, service", CLIENT),
            legend="{{tenant}} {{service}}",
            unit="reqps",
            stack=True,
            next="Tenants",
        ),
        timeseries(
            "Failed requests",
            "As clients saw it: timeouts and refusals of the gateway count, too. Next: the console's failed requests.",
            failed_share("tenant, model"),
            legend="{{tenant}} {{model}}",
            warn=0.01,
            bad=0.05,
            next="Engine / Finish reasons",
        ),
        timeseries(
            "Tokens",
            "Input and output tokens of each tenant; this is what is paid for.",
            per_second(f"{TOKENS}_sum", "tenant, token_type", CLIENT),
            legend="{{tenant}} {{token_type}}",
            stack=True,
            next="Tokens of a request, mean",
        ),
    ],
)

LATENCY = Row(
    "Latency",
    [
        timeseries(
            "Duration",
            "Of whole requests. One tenant alone: its prompts. All at once: the engines.",
            quantiles(DURATION, "model", CLIENT),
            warn=10,
            bad=30,
            next="Duration by tenant, p95",
        ),
        timeseries(
            "Duration by tenant, p95",
            "Who suffers. Next: what they send.",
            quantile(0.95, DURATION, "tenant", CLIENT),
            legend="{{tenant}}",
            warn=10,
            bad=30,
            next="Tokens of a request, mean",
        ),
        heatmap(
            "Duration, distribution",
            "Bands are kinds of requests; one that climbs is one kind that gets slower.",
            increases(DURATION, CLIENT),
            next="Duration by tenant, p95",
        ),
        timeseries(
            "Time to first token",
            "Of streamed requests, network and gateway included. Much over the engine's own: look between them.",
            quantiles(TTFT, "model", CLIENT),
            warn=1,
            bad=5,
            next="Engine / Time to first token",
        ),
        timeseries(
            "Tokens of a request, mean",
            "Longer answers take longer. A step after a release: the prompt changed.",
            mean(TOKENS, "tenant, token_type", CLIENT),
            legend="{{tenant}} {{token_type}}",
            next="Drift / Effect size",
        ),
        table(
            "Tenants",
            "One row a tenant; sort by what hurts.",
            {
                "Requests/s": per_second("tidegauge_requests_total", "tenant", CLIENT),
                "Failed": failed_share("tenant"),
                "Tokens/s": per_second(f"{TOKENS}_sum", "tenant", CLIENT),
                "p95 duration": quantile(0.95, DURATION, "tenant", CLIENT),
            },
            limits={"Failed": (0.01, 0.05), "p95 duration": (10, 30)},
            next="Failed requests",
        ),
    ],
)

DASHBOARD = Dashboard(
    key="requests",
    description="Requests as their clients saw them: traffic, failures, latency and tokens by tenant.",
    variables=[Variable(name, "tidegauge_requests_total", name) for name in ("tenant", "model", "service")],
    rows=[TRAFFIC, LATENCY],
)
