"""Whether Tidegauge itself can be believed."""

from dashboards.grafana import ANSWERS, Dashboard, Row, Variable, rate, state_timeline, table, timeseries
from dashboards.itself_arrivals import ARRIVALS
from dashboards.itself_ingest import INGEST
from dashboards.itself_scraping import SCRAPING
from dashboards.itself_store import STORE

PARTS = Row(
    "Parts",
    [
        state_timeline(
            "Listeners",
            "Red: somebody else has the address.",
            "max by (listener) (tidegauge_listener_up)",
            legend="{{listener}}",
            states=ANSWERS,
            next="Export requests",
        ),
        state_timeline(
            "GPU collector",
            "Down with `no_device` is normal on a machine without a GPU.",
            {
                "{{reason}}": "max by (reason) (tidegauge_gpu_collector_up)",
                "{{gpu}} {{reason}}": "max by (gpu, reason) (tidegauge_gpu_device_up)",
            },
            states=ANSWERS,
            next="GPU fields that cannot be read",
        ),
        timeseries(
            "GPU collection",
            "A look at all cards; slow with many processes on them.",
            "max(tidegauge_gpu_collect_duration_seconds)",
            legend="duration",
            warn=0.5,
            bad=1,
            next="GPU collection errors",
        ),
        rate(
            "GPU collection errors",
            "Looks that failed as a whole: driver or card.",
            "tidegauge_gpu_collect_errors_total",
            "gpu",
            next="GPU / XID events",
        ),
        table(
            "GPU fields that cannot be read",
            "And why: panels about them stay empty.",
            {"readable": "max by (gpu, field, reason) (tidegauge_gpu_field_available) == 0"},
            next="GPU collector",
        ),
        table(
            "Version",
            "What runs; two rows during an update.",
            {"running": "count by (version) (tidegauge_build_info)"},
            next="Loop errors",
        ),
    ],
)

DASHBOARD = Dashboard(
    key="itself",
    description="Whether Tidegauge itself can be believed: what comes in, what is stored, what fails.",
    variables=[Variable("target", "tidegauge_target_up", "target")],
    rows=[INGEST, ARRIVALS, STORE, SCRAPING, PARTS],
)
