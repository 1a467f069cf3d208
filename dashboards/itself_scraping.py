"""Tidegauge itself: whether the targets answer."""

from dashboards.grafana import ANSWERS, Row, rate, state_timeline, table, timeseries

TARGET = '{target=~"$target"}'

SCRAPING = Row(
    "Scraping",
    [
        state_timeline(
            "Target answers",
            "Red: what it served is unknown, not zero. Next: why.",
            f"max by (target) (tidegauge_target_up{TARGET})",
            legend="{{target}}",
            states=ANSWERS,
            next="Scrapes failed",
        ),
        rate(
            "Scrapes failed",
            "`timeout`: the engine is stuck or busy. `not_exposition`: a wrong path.",
            "tidegauge_scrape_failures_total",
            "target, reason",
            TARGET,
            next="Scrape duration",
        ),
        timeseries(
            "Since the last good scrape",
            "Older than a few intervals: panels about this target show nothing.",
            f"time() - max by (target) (tidegauge_scrape_last_success_timestamp_seconds{TARGET})",
            legend="{{target}}",
            warn=30,
            bad=120,
            next="Scrapes failed",
        ),
        timeseries(
            "Scrape duration",
            "Nearing the timeout: the engine's loop is busy, or the body is large.",
            f"max by (target) (tidegauge_scrape_duration_seconds{TARGET})",
            legend="{{target}}",
            warn=2,
            bad=4,
            next="Scrape size",
        ),
        timeseries(
            "Samples",
            "A step is another version of the engine, or a label that grows.",
            f"max by (target) (tidegauge_scrape_samples{TARGET})",
            legend="{{target}}",
            next="Scrape size",
        ),
        timeseries(
            "Scrape size",
            "Past the limit the whole scrape is refused.",
            f"max by (target) (tidegauge_scrape_body_bytes{TARGET})",
            legend="{{target}}",
            next="Samples",
        ),
        timeseries(
            "Targets",
            "By where they were found. A fall: a source says less.",
            "sum by (source) (tidegauge_targets)",
            legend="{{source}}",
            next="Targets left out",
        ),
        timeseries(
            "Targets left out",
            "`sharded`: another collector's. `invalid`, `clash`: `tidegauge targets` says why.",
            "sum by (reason) (tidegauge_targets_dropped)",
            legend="{{reason}}",
            next="Discovery errors",
        ),
        rate(
            "Discovery errors",
            "A source of targets fails; its last good answer stays in use.",
            "tidegauge_discovery_errors_total",
            "source",
            next="Targets",
        ),
        table(
            "Target details",
            "What each target is.",
            {"there": f"max by (target, engine, environment, url) (tidegauge_target_info{TARGET})"},
            next="Target answers",
        ),
    ],
)
