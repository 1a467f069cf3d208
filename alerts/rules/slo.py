"""Service-level objectives: multi-window, multi-burn-rate (Google, The Site Reliability Workbook, chapter 5)."""

from typing import NamedTuple

from alerts.rule import Case, Rule, Severity
from alerts.rules.indicators import HISTOGRAM_OF
from alerts.settings import AlertSettings, Slo
from catalog.duration import seconds


class Burn(NamedTuple):
    """At `rate` times the sustainable speed over both windows, the month's error budget goes too fast."""

    word: str
    rate: float
    long: str
    short: str
    hold: str
    severity: Severity
    firing: str  # in the cases: all requests are bad for this long, and the rule fires
    recovered: tuple[tuple[str, int], ...]  # in the cases: bad, then good for longer than the short window
    over: str


# 2 % of a 30-day budget in an hour, 5 % in six hours, 10 % in three days.
BURNS = (
    Burn("Fast", 14.4, "1h", "5m", "1m", Severity.PAGE, "20m", (("50m", 1), ("10m", 0)), "58m"),
    Burn("Slow", 6.0, "6h", "30m", "5m", Severity.PAGE, "40m", (("150m", 1), ("40m", 0)), "188m"),
    Burn("Trickle", 1.0, "3d", "6h", "1h", Severity.TICKET, "2h", (("2h", 1), ("370m", 0)), "488m"),
)


def rules(settings: AlertSettings) -> tuple[Rule, ...]:
    """A rule for each objective and burn rate; one that no share of bad requests could reach is left out."""
    return tuple(_rule(slo, burn) for slo in settings.slos for burn in BURNS if burn.rate * (1 - slo.objective) < 1)


def _matchers(slo: Slo, *more: str) -> str:
    chosen = [f'{key}="{value}"' for key, value in _selected(slo).items()]
    return "{" + ",".join([*chosen, *more]) + "}" if chosen or more else ""


def _selected(slo: Slo) -> dict[str, str]:
    pairs = (("model", slo.model), ("service", slo.service), ("tenant", slo.tenant))
    return {key: value for key, value in pairs if value is not None}


def _bad_ratio(slo: Slo, window: str) -> str:
    """Share of bad requests over the window, per model and service."""
    by = "sum by (model, service)"
    if slo.indicator == "errors":
        bad = f"{by} (rate(tidegauge_requests_total{_matchers(slo, _ERROR)}[{{{window}}}]))"
        return f"{bad} / {by} (rate(tidegauge_requests_total{_matchers(slo)}[{{{window}}}]))"
    histogram = HISTOGRAM_OF[slo.indicator]
    bound = f'le="{_bound(slo)}"'
    good = f"{by} (rate({histogram}_bucket{_matchers(slo, bound)}[{{{window}}}]))"
    return f"1 - {good} / {by} (rate({histogram}_count{_matchers(slo)}[{{{window}}}]))"


_ERROR = 'status="error"'


def _bound(slo: Slo) -> str:
    """The bucket's bound as prometheus_client writes it: a float, 5.0 and not 5."""
    return repr(float(slo.threshold_seconds or 0))


def _count(slo: Slo, window: str) -> str:
    name = "tidegauge_requests_total" if slo.indicator == "errors" else f"{HISTOGRAM_OF[slo.indicator]}_count"
    return f"sum by (model, service) (increase({name}{_matchers(slo)}[{{{window}}}]))"


def _what(slo: Slo) -> str:
    if slo.indicator == "errors":
        return "fail"
    event = (
        "wait longer than {} s for their first token" if slo.indicator == "time_to_first_token" else "take over {} s"
    )
    return event.format(f"{slo.threshold_seconds:g}")


def _rule(slo: Slo, burn: Burn) -> Rule:
    allowed = f"{burn.rate * (1 - slo.objective):.6g}"
    words = "".join(part.capitalize() for part in slo.name.split("_"))
    return Rule(
        name=f"LLMSlo{words}Burn{burn.word}",
        expr=f"""
            (
              {_bad_ratio(slo, burn.long)}
            ) > {allowed}
            and
            (
              {_bad_ratio(slo, burn.short)}
            ) > {allowed}
            and
            {_count(slo, burn.long)} > {{minimum_requests}}
        """,
        hold=burn.hold,
        severity=burn.severity,
        summary=f"{{{{ $value | humanizePercentage }}}} of {{{{ $labels.service }}}}'s requests to "
        f"{{{{ $labels.model }}}} {_what(slo)}",
        description=f"Objective {slo.name}: {slo.objective:.4%} of requests are good. The error budget burns at more "
        f"than {burn.rate:g} times the speed that lasts a month, over {{{burn.long}}} and still over {{{burn.short}}}.",
        runbook="slo-burn",
        dashboard="requests",
        scope=("model", "service"),
        filters={"status": "error"} if slo.indicator == "errors" else {},
        sort="duration" if slo.indicator != "time_to_first_token" else "time_to_first_token",
        labels={"slo": slo.name},
        fires=(Case("every request is bad", _series(slo, (burn.firing, 1)), burn.firing, _labels(slo), 1.0, "1m"),),
        silent=(
            Case("every request is good", _series(slo, (burn.firing, 0)), burn.firing, every="1m"),
            Case("it was bad, and is good again", _series(slo, *burn.recovered), burn.over, every="1m"),
        ),
    )


def _labels(slo: Slo) -> dict[str, str]:
    return {"model": slo.model or "llama", "service": slo.service or "support"}


def _series(slo: Slo, *phases: tuple[str, int]) -> dict[str, str]:
    """Series of 60 requests a minute; each phase has a length, and 1 where all requests are bad, 0 where none is."""
    labels = {**_labels(slo), "tenant": slo.tenant or "bank", "operation": "chat"}
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    bad = _counter(phases, bad=True)
    good = _counter(phases, bad=False)
    if slo.indicator == "errors":
        name = "tidegauge_requests_total"
        return {f'{name}{{{text},status="error"}}': bad, f'{name}{{{text},status="ok"}}': good}
    name = HISTOGRAM_OF[slo.indicator]
    minutes = sum(round(seconds(length) / 60) for length, _ in phases)
    return {
        f'{name}_bucket{{{text},le="{_bound(slo)}"}}': good,
        f"{name}_count{{{text}}}": f"0+60x{minutes - 1}",
    }


def _counter(phases: tuple[tuple[str, int], ...], *, bad: bool) -> str:
    """A counter in promtool's notation that grows in the phases that are (not) bad."""
    start, parts = 0, []
    for length, is_bad in phases:
        minutes = round(seconds(length) / 60)
        step = 60 if bool(is_bad) is bad else 0
        # `a+bxn` has n + 1 samples, so the next phase starts a minute on.
        parts.append(f"{start}+{step}x{minutes - 1}")
        start += step * minutes
    return " ".join(parts)
