"""Where an alert leads: its runbook, its dashboard, and the requests that suffered."""

from alerts.rule import Rule
from alerts.settings import AlertSettings
from alerts.templates import NOW
from catalog.links import dashboard_uid, runbook_path

# Names of dashboards' variables that are labels of alerts; a dashboard ignores those of others.
_VARIABLES = frozenset({"target", "model", "node", "gpu", "signal", "slice", "evaluator", "tenant", "service"})


def annotations(rule: Rule, settings: AlertSettings) -> dict[str, str]:
    """The links of an alert, as templates."""
    chosen = [f"{label}={_quoted(label)}" for label in rule.scope]
    chosen += [f"{name}={value}" for name, value in sorted(rule.filters.items())]
    return {
        "runbook_url": f"{settings.runbooks_url or settings.public_url}{runbook_path(rule.runbook)}",
        "dashboard_url": f"{settings.grafana_url}/d/{dashboard_uid(rule.dashboard)}{_variables(rule)}",
        "requests_url": f"{settings.public_url}/requests?{'&'.join([*chosen, f'at={NOW}', f'sort={rule.sort}'])}",
    }


def _variables(rule: Rule) -> str:
    labels = sorted(_VARIABLES & set(rule.fires[0].labels))
    pairs = [f"var-{label}={_quoted(label)}" for label in labels]
    return "?" + "&".join(pairs) if pairs else ""


def _quoted(label: str) -> str:
    return f"{{{{ $labels.{label} | urlquery }}}}"
