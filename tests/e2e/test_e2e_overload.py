"""The recorded overload, in real time, through everything: engine, Tidegauge, Prometheus, Alertmanager, incident.

The engine is a server that answers with the recorded scrapes of a real vLLM, one a second.  Windows and `for:` are
shortened by the generator's configuration alone.
"""

import gzip
import json
import time
import urllib.request
from pathlib import Path

import pytest

from alerts.build import build
from alerts.local_prometheus import free_port
from alerts.settings import AlertSettings
from tests.binaries import alert_states, alertmanager, local_server, prometheus, wait_for
from tests.e2e.service_kit import RunningService

pytestmark = pytest.mark.timeout(400)
SCRAPES = Path(__file__).parents[1] / "data" / "engines" / "vllm-0.32.0"
PAGE = "LLMEngineQueueLong"
# From the busy phase through the overload to calm: the last before the queue grows, and the last of all.
FIRST, LAST = 25, 88


class RecordedEngine:
    """Serves the recorded scrapes at the pace of their recording, the last one for ever."""

    def __init__(self) -> None:
        self._texts = [
            gzip.decompress((SCRAPES / f"{n:03}.prom.gz").read_bytes()).decode() for n in range(FIRST, LAST + 1)
        ]
        self._began: float | None = None

    def __call__(self) -> str:
        now = time.monotonic()
        self._began = self._began or now
        return self._texts[min(int(now - self._began), len(self._texts) - 1)]


def incidents(service: RunningService, status: str) -> list[dict[str, object]]:
    return [
        item
        for item in service.get("/api/v1/incidents")["incidents"]
        if item["alertname"] == PAGE and item["status"] == status
    ]


def test_recorded_overload_becomes_an_incident_and_resolves(tmp_path: Path) -> None:
    with local_server() as engine:
        engine.pages["/metrics"] = RecordedEngine()
        target = {"url": f"{engine.url}/metrics", "labels": {"instance": "gpu-7:8000", "environment": "prod"}}
        with RunningService(tmp_path, scrape={"interval": "500ms", "timeout": "400ms", "targets": [target]}) as service:
            port = free_port()
            address = service.url.removeprefix("http://")
            settings = AlertSettings(
                time_scale=0.1,
                public_url=service.url,
                webhook_url=f"{service.url}/api/v1/alerts/webhook",
                alertmanager=f"127.0.0.1:{port}",
                scrape_target=address,
                scrape_interval="1s",
                evaluation_interval="1s",
            )
            build(settings, tmp_path)
            with (
                alertmanager(tmp_path / "alertmanager/alertmanager.yml", tmp_path, port),
                prometheus(tmp_path / "prometheus/prometheus.yml", tmp_path) as url,
            ):
                wait_for("pending", lambda: "pending" in alert_states(url, PAGE), 40)
                wait_for("firing", lambda: "firing" in alert_states(url, PAGE), 20)
                fired = wait_for("an incident", lambda: incidents(service, "firing"), 20)
                wait_for("resolved", lambda: incidents(service, "resolved"), 60)
            incident = service.get(f"/api/v1/incidents/{fired[0]['incident_id']}")

    assert incident["labels"]["model"] == "tiny-llama"
    assert incident["labels"]["target"] == "gpu-7:8000"
    assert incident["ended_at"] is not None
    queue = [state["requests_waiting"] for state in incident["context"]["engines_at_notification"]]
    assert max(queue) > 100, incident["context"]


def test_page_link_leads_to_a_page_that_exists(tmp_path: Path) -> None:
    with RunningService(tmp_path) as service:
        at = int(time.time())
        url = f"{service.url}/requests?model=m&target=gpu-7%3A8000&at={at}&sort=time_to_first_token"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/html")
        assert json.loads(urllib.request.urlopen(f"{service.url}/api/v1/targets", timeout=10).read())["targets"] == []
