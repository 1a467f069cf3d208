"""The whole way of a page, with the real binaries in real time: pending, firing, Alertmanager, webhook, resolved."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from alerts.build import build
from alerts.local_prometheus import free_port
from alerts.settings import AlertSettings
from catalog.instruments import Instruments
from tests.binaries import LocalServer, alert_states, alertmanager, local_server, prometheus, wait_for

PAGE = "LLMEngineQueueLong"
ENGINE = {"target": "gpu-7", "engine": "vllm", "model": "meta-llama/Llama-3"}


class Engine:
    """An engine that finishes ten requests a second, with a queue that is set."""

    def __init__(self) -> None:
        metrics = Instruments(CollectorRegistry())
        self._registry = metrics.registry
        self.waiting: Gauge = metrics.gauges.llm_engine_requests_waiting.labels(**ENGINE)
        self._finished: Counter = metrics.counters.llm_engine_requests_total.labels(**ENGINE, finish_reason="stop")
        self._since = time.monotonic()

    def exposition(self) -> str:
        elapsed = time.monotonic() - self._since
        self._since += elapsed
        self._finished.inc(10 * elapsed)
        return generate_latest(self._registry).decode()


@pytest.fixture
def console() -> Iterator[LocalServer]:
    with local_server() as server:
        yield server


def test_overload_pages_through_alertmanager_and_resolves(console: LocalServer, tmp_path: Path) -> None:
    engine = Engine()
    console.pages["/metrics"] = engine.exposition
    port = free_port()
    settings = AlertSettings(
        time_scale=0.1,
        public_url=console.url,
        webhook_url=f"{console.url}/api/v1/alerts/webhook",
        alertmanager=f"127.0.0.1:{port}",
        scrape_target=f"127.0.0.1:{console.port}",
        scrape_interval="1s",
        evaluation_interval="1s",
    )
    build(settings, tmp_path)
    with (
        alertmanager(tmp_path / "alertmanager/alertmanager.yml", tmp_path, port),
        prometheus(tmp_path / "prometheus/prometheus.yml", tmp_path) as url,
    ):
        engine.waiting.set(0)
        time.sleep(5)
        assert alert_states(url, PAGE) == {}

        engine.waiting.set(450)
        wait_for("pending", lambda: "pending" in alert_states(url, PAGE), 15)
        fired = wait_for("firing", lambda: alert_states(url, PAGE).get("firing"), 15)
        page = wait_for("the webhook", lambda: _notification(console, "firing"), 15)

        engine.waiting.set(0)
        wait_for("resolved", lambda: not alert_states(url, PAGE), 10)
        wait_for("the webhook", lambda: _notification(console, "resolved"), 25)

    assert page["labels"] == {"alertname": PAGE, "severity": "page", **ENGINE}
    assert fired["annotations"]["summary"].startswith("meta-llama/Llama-3 on gpu-7 is overloaded")
    link = urlsplit(page["annotations"]["requests_url"])
    asked = parse_qs(link.query)
    assert (link.path, asked.pop("at")[0].isdigit()) == ("/requests", True)
    assert asked == {"model": [ENGINE["model"]], "target": ["gpu-7"], "sort": ["time_to_first_token"]}


def _notification(server: LocalServer, status: str) -> dict | None:
    found = [
        alert
        for posted in server.posted
        for alert in posted["alerts"]
        if alert["status"] == status and alert["labels"]["alertname"] == PAGE
    ]
    return found[-1] if found else None
