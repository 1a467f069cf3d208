"""Where an alert leads: its runbook, its dashboard, and the requests that suffered."""

from alerts.rule import Rule
from alerts.settings import AlertSettings
from alerts.templates import NOW

_DASHBOARD_VARIABLES = ("target", "model", "gpu")


def annotations(rule: Rule, settings: AlertSettings) -> dict[str, str]:
    """The links of an alert, as templates."""
    runbooks = settings.runbook_url.format(public_url=settings.public_url)
    chosen = "&".join(f"{label}={_quoted(label)}" for label in rule.scope)
    return {
        "runbook_url": f"{runbooks}/{rule.runbook}",
        "dashboard_url": f"{settings.grafana_url}/d/tidegauge-{rule.dashboard}{_variables(rule)}",
        "requests_url": f"{settings.public_url}/requests?{chosen}{'&' if chosen else ''}at={NOW}&sort={rule.sort}",
    }


def _variables(rule: Rule) -> str:
    pairs = [f"var-{label}={_quoted(label)}" for label in rule.scope if label in _DASHBOARD_VARIABLES]
    return "?" + "&".join(pairs) if pairs else ""


def _quoted(label: str) -> str:
    return f"{{{{ $labels.{label} | urlquery }}}}"
