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
            "By where they are listed. A fall: a file_sd file shrank.",
            "max by (source) (tidegauge_targets)",
            legend="{{source}}",
            next="file_sd errors",
        ),
        rate(
            "file_sd errors",
            "Unreadable target files; the last good version stays in use.",
            "tidegauge_file_sd_errors_total",
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
