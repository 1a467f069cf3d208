"""Tidegauge's own traces, sent to its own receiver: they arrive, and make no more of themselves."""

import time
import urllib.request
from pathlib import Path

import duckdb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.service_kit import RunningService, free_ports


def test_own_traces_arrive_before_the_end_and_hold_no_spans_of_received_exports(tmp_path: Path) -> None:
    (grpc,) = free_ports(1)
    address = f"127.0.0.1:{grpc}"
    service = RunningService(tmp_path, otlp_grpc=address, telemetry={"otlp_endpoint": f"http://{address}"})
    with service:
        for url in (service.url, service.otlp_url):
            _export(url)
        service.get("/metrics")
        began = time.monotonic()
        service.stop()
        took = time.monotonic() - began

    with duckdb.connect(str(service.data / "tidegauge.duckdb"), read_only=True) as database:
        rows = database.execute("SELECT name FROM spans WHERE service = 'tidegauge'").fetchall()
    names = {name for (name,) in rows}
    assert "commit" in names, service.log()
    assert [name for name in names if name.startswith(("GET", "POST", "fastapi"))] == []
    assert took < 5, "it waits for a receiver of its own that has gone"


def _export(url: str) -> None:
    request = ExportTraceServiceRequest()
    now = time.time_ns()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="chat", start_time_unix_nano=now - 10**9)
    span.end_time_unix_nano = now
    span.trace_id, span.span_id = bytes(range(16)), now.to_bytes(8, "big")
    body = urllib.request.Request(
        f"{url}/v1/traces", data=request.SerializeToString(), headers={"Content-Type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(body, timeout=10) as answer:
        assert answer.status == 200
