"""Alertmanager's configuration: Tidegauge's incident record hears of everything, people of what their severity says."""

from typing import Any

from alerts.scale import window
from alerts.settings import AlertSettings, Receiver, Severity

OWN = "tidegauge"


def configuration(settings: AlertSettings) -> dict[str, Any]:
    """The whole document."""
    return {
        "route": _route(settings),
        "inhibit_rules": _inhibitions(),
        "receivers": [_own(settings), *(_receiver(receiver) for receiver in settings.receivers)],
    }


def _route(settings: AlertSettings) -> dict[str, Any]:
    routes: list[dict[str, Any]] = [{"receiver": OWN, "continue": True}]
    for receiver in settings.receivers:
        severities = "|".join(severity.value for severity in receiver.severities)
        routes.append({"receiver": receiver.name, "matchers": [f'severity=~"{severities}"'], "continue": True})
    return {
        "receiver": OWN,
        "group_by": ["alertname", "target", "model"],
        "group_wait": window(settings.group_wait, settings),
        "group_interval": window(settings.group_interval, settings),
        "repeat_interval": settings.repeat_interval,
        "routes": routes,
    }


def _inhibitions() -> list[dict[str, Any]]:
    """What somebody was paged for says less when said again."""
    lesser = f'severity=~"{Severity.TICKET}|{Severity.INFO}"'
    return [
        {
            "source_matchers": ['alertname="LLMTargetDown"'],
            "target_matchers": ['alertname!="LLMTargetDown"', 'target!=""', lesser],
            "equal": ["target"],
        },
        {
            # The queue explains the full cache, the preemptions and the waiting.
            "source_matchers": ['alertname="LLMEngineQueueLong"'],
            "target_matchers": ['alertname=~"LLMEngineRequestsWait|LLMEngineKVCacheSaturated|LLMQueueTimeHigh"'],
            "equal": ["target", "model"],
        },
        {
            "source_matchers": ['alertname="GPULost"'],
            "target_matchers": ['alertname=~"GPU.+"', lesser],
            "equal": ["gpu"],
        },
    ]


def _own(settings: AlertSettings) -> dict[str, Any]:
    webhook: dict[str, Any] = {"url": settings.webhook_url, "send_resolved": True}
    if settings.webhook_token_file is not None:
        webhook["http_config"] = _bearer(settings.webhook_token_file)
    return {"name": OWN, "webhook_configs": [webhook]}


def _bearer(path: str) -> dict[str, Any]:
    return {"authorization": {"type": "Bearer", "credentials_file": path}}


def _receiver(receiver: Receiver) -> dict[str, Any]:
    document: dict[str, Any] = {"name": receiver.name}
    if receiver.pagerduty is not None:
        document["pagerduty_configs"] = [
            {
                "routing_key_file": receiver.pagerduty.routing_key_file,
                "send_resolved": True,
                "links": [
                    {"text": text, "href": f"{{{{ (index .Alerts 0).Annotations.{annotation} }}}}"}
                    for text, annotation in _LINKS
                ],
            }
        ]
    if receiver.slack is not None:
        document["slack_configs"] = [
            {
                "api_url_file": receiver.slack.api_url_file,
                "channel": receiver.slack.channel,
                "send_resolved": True,
                "title": _TITLE,
                "text": _TEXT,
            }
        ]
    if receiver.email is not None:
        document["email_configs"] = [_email(receiver)]
    if receiver.webhook is not None:
        webhook: dict[str, Any] = {"url": receiver.webhook.url, "send_resolved": True}
        if receiver.webhook.token_file is not None:
            webhook["http_config"] = _bearer(receiver.webhook.token_file)
        document["webhook_configs"] = [webhook]
    return document


def _email(receiver: Receiver) -> dict[str, Any]:
    email = receiver.email
    assert email is not None
    document: dict[str, Any] = {
        "to": email.to,
        "from": email.sender,
        "smarthost": email.smarthost,
        "send_resolved": True,
        "headers": {"Subject": _TITLE},
        "text": _TEXT,
    }
    if email.username is not None:
        document["auth_username"] = email.username
    if email.password_file is not None:
        document["auth_password_file"] = email.password_file
    return document


_LINKS = (("Requests", "requests_url"), ("Dashboard", "dashboard_url"), ("Runbook", "runbook_url"))
_TITLE = "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }} {{ .CommonLabels.target }} {{ .CommonLabels.model }}"
_TEXT = """{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
Requests: {{ .Annotations.requests_url }}
Dashboard: {{ .Annotations.dashboard_url }}
Runbook: {{ .Annotations.runbook_url }}
{{ end }}"""
