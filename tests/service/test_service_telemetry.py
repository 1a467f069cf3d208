"""Tidegauge's own traces, sent to its own receiver, do not breed."""

import time
from pathlib import Path

import duckdb

from tests.binaries import local_server, wait_for
from tests.e2e.service_kit import RunningService


def own_spans(service: RunningService) -> float:
    return service.metric("tidegauge_ingest_spans_total", status="stored")


def test_own_traces_arrive_without_echo(tmp_path: Path) -> None:
    with local_server() as engine:
        engine.pages["/metrics"] = lambda: "vllm:num_requests_waiting 1\n"
        service = RunningService(tmp_path, scrape={"interval": "500ms", "targets": [{"url": f"{engine.url}/metrics"}]})
        text = service.config.read_text() + f"telemetry: {{otlp_endpoint: 'http://{service.grpc}'}}\n"
        service.config.write_text(text)
        with service:
            wait_for("own spans", lambda: own_spans(service) > 0, 20)
            before, began = own_spans(service), time.monotonic()
            time.sleep(6)
            grown, lasted = own_spans(service) - before, time.monotonic() - began
    # Each scrape gives its own span and one for the commit of its rows; spans about spans would make it grow.
    assert 0 < grown < 10 * lasted
    with duckdb.connect(str(service.data / "tidegauge.duckdb"), read_only=True) as database:
        rows = database.execute("SELECT DISTINCT name FROM spans WHERE service = 'tidegauge'").fetchall()
    assert {"scrape", "commit"} <= {name for (name,) in rows}
