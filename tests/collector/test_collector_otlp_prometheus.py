"""What comes over OTLP metrics, as a real Prometheus reads it, and counts that add up while it comes."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from alerts.promtool import binary
from catalog.instruments import Instruments
from collector.otlp.metrics.exposition import exposition
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.parse import JSON, PROTOBUF
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.served import Served
from store.settings import StoreSettings
from tests.binaries import prometheus, query, wait_for
from tests.collector.otlp_support import KEY, RECORDED_NOW, body, pairs
from tests.store_kit import Store

CONFIG = """
global: {scrape_interval: 250ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: tidegauge
    honor_labels: true
    static_configs:
      - {targets: ['OPENMETRICS'], labels: {format: openmetrics}}
      - {targets: ['TEXT'], labels: {format: text}}
"""
CLIENTS = ("oai-v2-latest", "traceloop")


@contextmanager
def page_of(render: Callable[[], tuple[bytes, str]]) -> Iterator[str]:
    """Address of a server that answers with the page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, kind = render()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data", StoreSettings())
    made.clock.time = RECORDED_NOW
    yield made
    made.close()


@pytest.fixture
def receiver(store: Store) -> Iterator[OtlpReceiver]:
    made = OtlpReceiver(OtlpSettings(), store.writer.submit, store.clock, store.metrics, KEY)
    yield made
    made.close()


def send(receiver: OtlpReceiver, raw: bytes, signal: Signal, media: str = PROTOBUF) -> Outcome:
    return asyncio.run(receiver.receive(raw, media, None, Sender("http"), signal)).outcome


def delta_request(orders: int, minute: int) -> bytes:
    request = ExportMetricsServiceRequest()
    made = request.resource_metrics.add()
    made.resource.attributes.extend(pairs({"service.name": "shop", "service.instance.id": "shop-1", "host.name": "h"}))
    metric = made.scope_metrics.add().metrics.add(name="orders", description='said "yes"\\no')
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True
    start = int(RECORDED_NOW - 3_600 + 60 * minute) * 10**9
    metric.sum.data_points.add(
        as_int=orders, start_time_unix_nano=start, time_unix_nano=start + 60 * 10**9, attributes=pairs({"a.b": 'x"\\y'})
    )
    return request.SerializeToString()


def test_prometheus_takes_the_page_in_both_formats(store: Store, receiver: OtlpReceiver, tmp_path: Path) -> None:
    served = Served(store.clock, 60.0, store.metrics.registry)
    served.add(partial(exposition, receiver.series))
    for client in CLIENTS:
        assert send(receiver, body(f"clients/{client}-metrics.pb.gz"), Signal.METRICS) is Outcome.ACCEPTED
    send(receiver, delta_request(3, 0), Signal.METRICS)
    config = tmp_path / "prometheus.yml"
    with (
        page_of(partial(served.render, "application/openmetrics-text")) as openmetrics,
        page_of(partial(served.render, "text/plain")) as text,
    ):
        config.write_text(CONFIG.replace("OPENMETRICS", openmetrics).replace("TEXT", text))
        with prometheus(config, tmp_path) as url:
            both = "count(orders_total == {}) == 2"
            wait_for("orders", lambda: query(url, both.format(3)), 20)
            send(receiver, delta_request(4, 1), Signal.METRICS)
            wait_for("more orders", lambda: query(url, both.format(7)), 20)
            labels = query(url, 'sum by (job, instance, a_b, __name__) ({__name__="orders_total"})')[0]["metric"]
            assert labels == {"__name__": "orders_total", "job": "shop", "instance": "shop-1", "a_b": 'x"\\y'}
            joined = query(url, "orders_total * on (job, instance, format) group_left (host_name) target_info")
            assert {row["metric"]["host_name"] for row in joined} == {"h"}
            calls = query(url, "sum by (format) (otlp_gen_ai_client_operation_duration_seconds_count)")
            assert [float(row["value"][1]) for row in calls] == [_calls()] * 2
            median = "histogram_quantile(0.5, sum by (le) (otlp_gen_ai_client_token_usage_bucket))"
            assert 1 < float(query(url, median)[0]["value"][1]) < 100
            assert [row["value"][1] for row in query(url, "up")] == ["1", "1"]


def _calls() -> int:
    """Calls whose duration the clients counted."""
    return sum(
        point.count
        for client in CLIENTS
        for resource in ExportMetricsServiceRequest.FromString(body(f"clients/{client}-metrics.pb.gz")).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "gen_ai.client.operation.duration"
        for point in metric.histogram.data_points
    )


def test_promtool_reads_the_page(store: Store, receiver: OtlpReceiver) -> None:
    for client in CLIENTS:
        send(receiver, body(f"clients/{client}-metrics.pb.gz"), Signal.METRICS)
    done = subprocess.run(
        [binary("promtool"), "check", "metrics"],
        input=exposition(receiver.series, False).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    # 3 is a name that its linter does not like, such as clients choose; 1 is text that it cannot read.
    assert done.returncode in (0, 3), done.stderr.decode()


def test_records_and_points_add_up_at_every_moment(store: Store, receiver: OtlpReceiver) -> None:
    logs = body("clients/oai-v2-latest-logs.pb.gz")
    sent = {
        Signal.LOGS: [logs, logs, _untraced(5)],
        Signal.METRICS: [body("clients/traceloop-metrics.pb.gz")] * 2 + [delta_request(1, number) for number in (2, 0)],
    }
    done = threading.Event()

    def watch() -> int:
        looks = 0
        while not looks or not done.is_set():
            for signal in sent:
                received, accounted = _balance(store.metrics, signal)
                assert received == accounted
                looks += 1
        return looks

    with ThreadPoolExecutor(5) as threads:
        watching = threads.submit(watch)
        work = [
            threads.submit(send, receiver, raw, signal, JSON if raw[:1] == b"{" else PROTOBUF)
            for signal, bodies in sent.items()
            for raw in bodies
        ]
        for item in work:
            item.result(30)
        done.set()
        assert watching.result(30) > 0
    assert _balance(store.metrics, Signal.LOGS) == (29, 29)
    assert _balance(store.metrics, Signal.METRICS) == (60, 60)


def _untraced(records: int) -> bytes:
    log = {"timeUnixNano": str(int(RECORDED_NOW) * 10**9), "body": {"stringValue": "no trace"}}
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [log] * records}]}]}).encode()


def _balance(metrics: Instruments, signal: Signal) -> tuple[float, float]:
    """Items received; and those counted by status, together with those that wait."""
    family = {Signal.LOGS: "log_records", Signal.METRICS: "metric_points"}[signal]
    received = accounted = left_out = named = 0.0
    for metric in metrics.registry.collect():
        for sample in metric.samples:
            if sample.name == "tidegauge_ingest_received_total" and sample.labels["signal"] == signal:
                received = sample.value
            elif sample.name == "tidegauge_ingest_waiting" and sample.labels["signal"] == signal:
                accounted += sample.value
            elif sample.name == f"tidegauge_ingest_{family}_total":
                accounted += sample.value
                left_out += sample.value * (sample.labels["status"] in ("rejected", "discarded"))
            elif sample.name == f"tidegauge_ingest_left_out_{family}_total":
                named += sample.value
    assert left_out == named
    return received, accounted
