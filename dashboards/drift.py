"""What changed, in which slice, and how sure that is."""

from dashboards.grafana import GREEN, RED, Dashboard, Row, Variable, state_timeline, table, timeseries
from dashboards.queries import per_second, quantiles

CHOSEN = '{signal=~"$signal", slice=~"$slice"}'
BY = "signal, slice, detector"
LEGEND = "{{signal}} {{slice}}"

STATE = Row(
    "State",
    [
        state_timeline(
            "Confirmed drift",
            "Red from confirmation to resolution. Next: how large it is; its evidence is in the console under Drift.",
            f"max by (signal, slice) (tidegauge_drift_active{CHOSEN})",
            legend=LEGEND,
            states={0: ("none", GREEN), 1: ("drift", RED)},
            width=24,
            next="Effect size",
        ),
        timeseries(
            "Effect size",
            "How large the change is, in the detector's own unit. Small and certain is a change, not yet a problem.",
            f"max by ({BY}) (tidegauge_drift_effect_size{CHOSEN})",
            legend=LEGEND + " ({{detector}})",
            width=12,
            next="Evidence",
        ),
        timeseries(
            "Evidence",
            "Logarithm of the e-value: 0 says nothing, 4.6 is 100 to 1 against no change, 9.2 is 10,000 to 1.",
            f"max by ({BY}) (tidegauge_drift_log_e_value{CHOSEN})",
            legend=LEGEND + " ({{detector}})",
            unit="none",
            warn=4.6,
            bad=9.2,
            width=12,
            next="Eval quality / Mean score with its 95 % band",
        ),
        table(
            "Slices",
            "Every slice's last comparison.",
            {
                "Confirmed": f"max by ({BY}) (tidegauge_drift_active{CHOSEN})",
                "Effect": f"max by ({BY}) (tidegauge_drift_effect_size{CHOSEN})",
                "Log e-value": f"max by ({BY}) (tidegauge_drift_log_e_value{CHOSEN})",
            },
            limits={"Confirmed": (1, 1), "Log e-value": (4.6, 9.2)},
            width=24,
            next="Confirmed drift",
        ),
    ],
)

ROUNDS = Row(
    "Rounds of tests",
    [
        timeseries(
            "Rounds",
            "Errors mean that nothing was tested. None at all: the loop stands still.",
            per_second("tidegauge_drift_rounds_total", "outcome"),
            legend="{{outcome}}",
            next="Tidegauge itself / Loop errors",
        ),
        timeseries(
            "Comparisons",
            "`too_few` cannot find anything: widen the window, or drop a dimension.",
            per_second("tidegauge_drift_tests_total", "signal, outcome", '{signal=~"$signal"}'),
            legend="{{signal}} {{outcome}}",
            stack=True,
            next="Rows too late",
        ),
        timeseries(
            "Duration of a round",
            "Must stay far below the interval between rounds.",
            quantiles("tidegauge_drift_round_duration_seconds", ""),
            warn=10,
            bad=60,
            next="Rounds",
        ),
        timeseries(
            "Rows too late",
            "Came after their window was tested, and were left out of it. Many: raise the watermark.",
            per_second("tidegauge_drift_late_rows_total", "signal", '{signal=~"$signal"}'),
            legend="{{signal}}",
            next="Tidegauge itself / Ingest lag",
        ),
    ],
)

DASHBOARD = Dashboard(
    key="drift",
    description="What changed, in which slice, how much, and how sure that is.",
    variables=[Variable(name, "tidegauge_drift_active", name) for name in ("signal", "slice")],
    rows=[STATE, ROUNDS],
    since="now-24h",
)
