"""What tests of the front door share: a service, and spans to send."""

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.config import Config
from service.runtime import Service
from tests.e2e.service_kit import free_ports

DATA = Path(__file__).parents[1] / "data"
PROTOBUF = {"content-type": "application/x-protobuf"}
NOW_NS = 1_800_000_000_000_000_000


class SetClock:
    """A clock that stands at NOW_NS."""

    seconds = NOW_NS / 1e9

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def config(data: Path, **changes: Any) -> Config:
    http, otlp_grpc, otlp_http = free_ports(3)
    addresses = {
        "listen": f"127.0.0.1:{http}",
        "otlp_grpc": f"127.0.0.1:{otlp_grpc}",
        "otlp_http": f"127.0.0.1:{otlp_http}",
    }
    return Config.model_validate({"data": data, **addresses, **changes})


def front(service: Service, **headers: str) -> httpx.AsyncClient:
    """Speaks to the OTLP application without a socket."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(service.otlp_app), base_url=f"http://{service.config.otlp_http}", headers=headers
    )


def main(service: Service, **headers: str) -> httpx.AsyncClient:
    """Speaks to the main application without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url=service.config.url(), headers=headers)


def _resource(said: Any, service: str) -> None:
    said.attributes.add(key="service.name").value.string_value = service


def traces(*tenants: str | None, service: str = "shop", first: int = 1, at: int = NOW_NS) -> ExportTraceServiceRequest:
    """A model call for each tenant (None: without one), span ids from `first` on."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _resource(resource.resource, service)
    for number, tenant in enumerate(tenants, first):
        span = resource.scope_spans.add(scope={"name": "test"}).spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="chat m",
            start_time_unix_nano=at - 2_000_000_000,
            end_time_unix_nano=at - 1_000_000_000,
        )
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
        if tenant is not None:
            span.attributes.add(key="tenant.id").value.string_value = tenant
    return request


def logs(*tenants: str | None) -> ExportLogsServiceRequest:
    """A log record of a trace for each tenant."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _resource(resource.resource, "shop")
    for number, tenant in enumerate(tenants, 1):
        record = resource.scope_logs.add().log_records.add(
            trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), time_unix_nano=NOW_NS - number
        )
        record.body.string_value = f"log {number}"
        if tenant is not None:
            record.attributes.add(key="tenant.id").value.string_value = tenant
    return request


def metrics() -> ExportMetricsServiceRequest:
    """One point."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="jobs")
    metric.gauge.data_points.add(as_int=1, time_unix_nano=NOW_NS)
    return request


@cache
def recorded(client: str) -> list[dict[str, Any]]:
    """The requests of a recorded client."""
    requests: list[dict[str, Any]] = json.loads((DATA / "otlp-clients" / f"{client}.json").read_text())
    return requests


def body_of(client: str, request: dict[str, Any]) -> bytes:
    """What the client sent, in the encoding it used."""
    signal = request["signal"]
    if signal == "other":
        path = DATA / "otlp-clients" / f"{client}-{(request['file'] or '').partition('.')[0]}.json"
        return path.read_bytes() if path.exists() else b""
    suffix = {"traces": ".json.gz" if "json" in request["content_type"] else ".pb.gz"}.get(signal, f"-{signal}.pb.gz")
    raw = gzip.decompress((DATA / "otlp" / "clients" / f"{client}{suffix}").read_bytes())
    return gzip.compress(raw) if request["content_encoding"] == "gzip" else raw


def headers_of(request: dict[str, Any], key: str) -> dict[str, str]:
    """The client's headers, its made-up key replaced."""
    sent = {name: value for name, value in request["headers"].items() if name != "transfer-encoding"}
    said = sent.get("authorization", "")
    if said.startswith("Basic"):
        user = said.partition("(")[2].partition(":")[0]
        sent["authorization"] = "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()
    elif said.startswith("Bearer"):
        sent["authorization"] = f"Bearer {key}"
    elif said:
        sent["authorization"] = key
    if "api_key" in sent:
        sent["api_key"] = key
    return sent
