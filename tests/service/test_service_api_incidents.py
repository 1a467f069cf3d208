"""Alertmanager's webhook and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_world import MODEL, NOW, TARGET, World, call, drift_row, tick, trace_id, world

WEBHOOK = "/api/v1/alerts/webhook"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def notification(status: str = "firing", **said: Any) -> dict[str, Any]:
    """As Alertmanager 0.27 posts it, with Go's nanoseconds and zero time."""
    alert = {
        "status": status,
        "labels": {"alertname": "QueueLong", "severity": "page", "model": MODEL, "target": TARGET},
        "annotations": {"summary": "many wait", "requests_url": "http://127.0.0.1:8433/requests?at=1"},
        "startsAt": "2027-01-15T07:58:30.123456789Z",
        "endsAt": "2027-01-15T08:01:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "5ef77f1f8a3ecb8d",
    } | said
    return {
        "version": "4", "groupKey": '{}:{alertname="QueueLong"}', "truncatedAlerts": 0, "status": status,
        "receiver": "tidegauge", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "alerts": [alert],
    }  # fmt: skip


async def test_an_alert_fires_and_resolves_as_one_incident(here: World) -> None:
    fired = (await here.post(WEBHOOK, notification())).json()["incidents"]
    (open_,) = (await here.json("/api/v1/incidents?status=firing"))["incidents"]
    assert (open_["incident_id"], open_["alertname"], open_["ended_at"]) == (fired[0], "QueueLong", None)
    assert (await here.post(WEBHOOK, notification("resolved"))).json()["incidents"] == fired
    (closed,) = (await here.json("/api/v1/incidents"))["incidents"]
    assert (closed["status"], closed["ended_at"]) == ("resolved", "2027-01-15T08:01:00Z")


async def test_a_late_firing_does_not_open_what_has_ended(here: World) -> None:
    for status in ("firing", "resolved", "firing"):
        await here.post(WEBHOOK, notification(status))
    (row,) = (await here.json("/api/v1/incidents"))["incidents"]
    assert (row["status"], row["ended_at"]) == ("resolved", "2027-01-15T08:01:00Z")


async def test_the_same_alert_later_is_another_incident(here: World) -> None:
    await here.post(WEBHOOK, notification())
    await here.post(WEBHOOK, notification(startsAt="2027-01-15T07:59:30Z"))
    assert len((await here.json("/api/v1/incidents"))["incidents"]) == 2


async def test_an_incident_keeps_what_was_going_on_when_it_began(here: World) -> None:
    here.calls(call(1, ttft=0.1), call(2, ttft=9.0, tenant="b"))
    here.put("engine_state", [tick(NOW - 91, 570, 3)])
    here.put("drift_results", [drift_row("a")])
    (incident_id,) = (await here.post(WEBHOOK, notification())).json()["incidents"]
    await here.post(WEBHOOK, notification("resolved"))
    context = (await here.json(f"/api/v1/incidents/{incident_id}"))["context"]
    assert [row["trace_id"] for row in context["worst_requests"]] == [trace_id(2), trace_id(1)]
    assert [row["requests_waiting"] for row in context["engines_at_start"]] == [570.0]
    assert [row["slice"] for row in context["active_drift"]] == ["tenant=a"]
    assert {row["value"]: row["requests"] for row in context["requests"]} == {"a": 1, "b": 1}


async def test_the_snapshot_of_a_tenants_alert_holds_that_tenant_alone(here: World) -> None:
    here.calls(call(1, tenant="a"), call(2, tenant="b", service="other"))
    here.put("drift_results", [drift_row("a"), drift_row("b")])
    labels = {"alertname": "Refusals", "tenant": "a"}
    (incident_id,) = (await here.post(WEBHOOK, notification(labels=labels))).json()["incidents"]
    context = (await here.json(f"/api/v1/incidents/{incident_id}"))["context"]
    assert [row["tenant"] for row in context["worst_requests"]] == ["a"]
    assert [row["value"] for row in context["requests"]] == ["bot"]
    assert [row["slice"] for row in context["active_drift"]] == ["tenant=a"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "version"),
        ({"version": "3", "status": "firing", "alerts": []}, "version"),
        ({"version": "4", "status": "firing", "alerts": [{"status": "firing", "labels": {}}]}, "alerts.0.startsAt"),
        (notification("firing", labels={"a": 1}), "alerts.0.labels.a"),
    ],
    ids=["empty", "old version", "no start", "label is no text"],
)
async def test_a_malformed_notification_is_a_problem_document(here: World, body: dict[str, Any], name: str) -> None:
    response = await here.post(WEBHOOK, body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert response.json()["errors"][0]["name"] == name


async def test_many_alerts_at_once_are_stored_with_a_bounded_number_of_snapshots(here: World) -> None:
    payload = notification()
    alert = payload["alerts"][0]
    payload["alerts"] = [
        {**alert, "fingerprint": f"{n}", "labels": {**alert["labels"], "target": f"t{n}"}} for n in range(30)
    ]
    assert len((await here.post(WEBHOOK, payload)).json()["incidents"]) == 30
    rows = (await here.json("/api/v1/incidents"))["incidents"]
    contexts = [(await here.json(f"/api/v1/incidents/{row['incident_id']}"))["context"] for row in rows]
    assert sum("note" in context for context in contexts) == 10


async def test_alerts_are_counted(here: World) -> None:
    await here.post(WEBHOOK, notification())
    await here.post(WEBHOOK, notification("resolved"))
    text = (await here.get("/metrics")).text
    assert 'tidegauge_incidents_total{status="firing"} 1.0' in text
    assert 'tidegauge_incidents_total{status="resolved"} 1.0' in text
