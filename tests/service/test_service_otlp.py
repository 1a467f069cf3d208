"""Traces, logs and metrics of one recorded client through the whole service."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from test_service_runtime import config

from service.replay.stage import TimeShift
from service.runtime import Service
from tests.collector.otlp_support import FixedClock, body

PROTOBUF = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(config(tmp_path / "data"), clock=FixedClock())
    await made.listen()
    yield made
    await made.stop()


async def test_logs_stand_beside_the_request_they_belong_to(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.config.url()) as http:
        for signal, name in (("logs", "oai-v2-latest-logs"), ("traces", "oai-v2-latest")):
            raw = gzip.compress(body(f"clients/{name}.pb.gz"))
            assert (await http.post(f"/v1/{signal}", content=raw, headers=PROTOBUF)).status_code == 200
        listed = (await http.get("/api/v1/requests", params={"operation": "chat", "from": "-1d"})).json()["requests"]
        views = [(await http.get(f"/api/v1/requests/{row['trace_id']}")).json() for row in listed]
    assert len(listed) == 12
    assert all(view["requests"][0]["input_messages"] and view["logs"] for view in views)


async def test_metrics_over_grpc_are_on_the_page_of_metrics(service: Service) -> None:
    request = ExportMetricsServiceRequest.FromString(body("clients/traceloop-metrics.pb.gz"))
    async with grpc.aio.insecure_channel(service.config.otlp_grpc) as channel:
        assert await MetricsServiceStub(channel).Export(request) == ExportMetricsServiceResponse()
    async with httpx.AsyncClient(base_url=service.config.url()) as http:
        page = (await http.get("/metrics")).text
    assert "otlp_gen_ai_client_operation_duration_seconds_bucket{" in page
    assert 'job="demo-app"' in page
    assert 'tidegauge_ingest_metric_points_total{status="served"} 29.0' in page


def times(message: Message) -> list[int]:
    """Every time in the message, in the order of its fields."""
    found = []
    for field, value in message.ListFields():
        if field.name.endswith("time_unix_nano"):
            found.append(value)
        elif isinstance(value, Message) or (field.message_type and not isinstance(value, (str, bytes))):
            found += [time for item in ([value] if isinstance(value, Message) else value) for time in times(item)]
    return found


RECORDED = {"oai-v2-latest-logs": ExportLogsServiceRequest, "traceloop-metrics": ExportMetricsServiceRequest}


@pytest.mark.parametrize("name", RECORDED)
def test_a_replay_moves_the_times_of_logs_and_metrics_too(name: str) -> None:
    request = RECORDED[name].FromString(body(f"clients/{name}.pb.gz"))
    before = times(request)
    shift = TimeShift()
    shift.nanoseconds = 7 * 10**9
    shift(request)
    assert times(request) == [time + 7 * 10**9 for time in before]
    assert len(before) > 10
