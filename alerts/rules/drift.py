"""Has something changed that nobody said would."""

from alerts.rule import Case, Rule, Severity

_SLICE = 'signal="refusal",slice="tenant=bank",detector="ks"'
_LABELS = {"signal": "refusal", "slice": "tenant=bank", "detector": "ks"}

RULES = (
    Rule(
        name="LLMDriftConfirmed",
        # The detector holds the false-alarm rate and the least effect; `for:` would only delay what it has confirmed.
        expr="""
            tidegauge_drift_effect_size
            and on (signal, slice, detector)
            tidegauge_drift_active == 1
        """,
        severity=Severity.PAGE,
        summary='{{ $labels.signal }} has changed for {{ $labels.slice }}: effect {{ $value | printf "%.2f" }} '
        "({{ $labels.detector }})",
        description="Confirmed against the reference, corrected for everything that was tested, and large enough to "
        "matter. The drift page shows both distributions, the start and the worst requests.",
        runbook="drift-confirmed",
        dashboard="drift",
        fires=(
            Case(
                "confirmed",
                {
                    f"tidegauge_drift_active{{{_SLICE}}}": "0x4 1x20",
                    f"tidegauge_drift_effect_size{{{_SLICE}}}": "0.02x4 0.31x20",
                },
                "3m",
                _LABELS,
                value=0.31,
            ),
        ),
        silent=(
            Case(
                "a large effect that is not confirmed",
                {f"tidegauge_drift_active{{{_SLICE}}}": "0x24", f"tidegauge_drift_effect_size{{{_SLICE}}}": "0.6x24"},
                "3m",
            ),
        ),
    ),
    Rule(
        name="LLMDriftTestsStopped",
        expr='sum (increase(tidegauge_drift_rounds_total{outcome="ok"}[{1h}])) == 0',
        hold="30m",
        severity=Severity.TICKET,
        summary="No round of drift tests has succeeded for an hour; drift would go unseen",
        description="The absence of drift alerts means nothing until this ends.",
        runbook="drift-tests-stopped",
        dashboard="drift",
        fires=(Case("no more rounds", {'tidegauge_drift_rounds_total{outcome="ok"}': "0+1x40 41x400"}, "106m"),),
        silent=(
            Case("rounds go on", {'tidegauge_drift_rounds_total{outcome="ok"}': "0+1x440"}, "106m"),
            Case("just started", {'tidegauge_drift_rounds_total{outcome="ok"}': "0x40"}, "9m"),
        ),
    ),
    Rule(
        name="LLMDriftRoundsFail",
        expr='sum (increase(tidegauge_drift_rounds_total{outcome="error"}[{30m}])) > 2',
        severity=Severity.TICKET,
        summary="{{ $value | humanize }} rounds of drift tests failed",
        description="The log says why, once for each kind of error.",
        runbook="drift-tests-stopped",
        dashboard="drift",
        fires=(Case("all fail", {'tidegauge_drift_rounds_total{outcome="error"}': "0+1x80"}, "15m", value=60),),
        silent=(Case("one failed", {'tidegauge_drift_rounds_total{outcome="error"}': "0x40 1x40"}, "15m"),),
    ),
)
