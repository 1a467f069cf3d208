"""Where things are found: one spelling of every link between panels, alerts, runbooks and the console."""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote, urlencode

# Dashboards by key; the key is in the address, so it stays when the title changes.
DASHBOARDS: Mapping[str, str] = MappingProxyType(
    {
        "fleet": "Fleet",
        "engine": "Engine",
        "gpu": "GPU",
        "requests": "Requests and tenants",
        "quality": "Eval quality",
        "drift": "Drift",
        "itself": "Tidegauge itself",
    }
)
FOLDER = "tidegauge"


def dashboard_uid(key: str) -> str:
    """Grafana's uid of a dashboard; KeyError for an unknown key."""
    if key not in DASHBOARDS:
        raise KeyError(f"no dashboard {key!r}, only {', '.join(DASHBOARDS)}")
    return f"{FOLDER}-{key}"


def dashboard_path(key: str, variables: Mapping[str, str] | None = None, panel: int | None = None) -> str:
    """Path and query of a dashboard under Grafana's address, with values of its variables, or one panel of it."""
    query = {f"var-{name}": value for name, value in (variables or {}).items()}
    if panel is not None:
        query["viewPanel"] = str(panel)
    return f"/d/{dashboard_uid(key)}" + (f"?{urlencode(query)}" if query else "")


def runbook_path(runbook: str) -> str:
    """Path of a runbook under the console's address."""
    return f"/runbooks/{quote(runbook)}"


def requests_path(at: str, sort: str = "duration") -> str:
    """Path and query, under the console's address, of the worst requests of a moment; `at` may be a template."""
    return f"/requests?at={at}&sort={sort}"
