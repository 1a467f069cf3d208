"""The parts together: who is let in, what a taken port means, and that every page's links lead somewhere."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

import alerts.build
from alerts.settings import AlertSettings
from service import locate
from service.auth import Role
from service.config import Config
from service.listeners import AddressTaken
from service.runtime import NotSafeToListen, Service
from tests.collector.remote_write_receivers import unsnapped
from tests.e2e.service_kit import free_ports


def config(data: Path, **changes: object) -> Config:
    http, otlp_grpc, otlp_http = free_ports(3)
    addresses = {
        "listen": f"127.0.0.1:{http}",
        "otlp_grpc": f"127.0.0.1:{otlp_grpc}",
        "otlp_http": f"127.0.0.1:{otlp_http}",
    }
    return Config.model_validate({"data": data, **addresses, **changes})


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(config(tmp_path / "data"))
    await made.listen()
    yield made
    await made.stop()


def client(service: Service, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=service.config.url(), headers=headers)


async def test_every_runbook_of_a_rule_is_served(service: Service) -> None:
    paths = {urlsplit(rule.annotations["runbook_url"]).path for rule in alerts.build.generated_rules(AlertSettings())}
    async with client(service) as http:
        statuses = {path: (await http.get(path)).status_code for path in sorted(paths)}
    assert len(paths) > 20
    assert set(statuses.values()) == {200}, statuses


async def test_unknown_runbook_is_not_found(service: Service) -> None:
    async with client(service) as http:
        assert (await http.get("/runbooks/..%2f..%2fpyproject")).status_code == 404
        assert (await http.get("/runbooks/no-such-thing")).status_code == 404


async def test_once_there_is_a_key_every_listener_asks_for_one(service: Service) -> None:
    _, ingest = service.keys.create(Role.INGEST)
    body = ExportTraceServiceRequest()
    protobuf = {"content-type": "application/x-protobuf"}
    async with client(service) as http:
        otlp = f"http://{service.config.otlp_http}/v1/traces"
        refused = [
            (await http.get("/api/v1/requests")).status_code,
            (await http.post("/v1/traces", content=body.SerializeToString(), headers=protobuf)).status_code,
            (await http.post(otlp, content=body.SerializeToString(), headers=protobuf)).status_code,
        ]
        headers = {**protobuf, "authorization": f"Bearer {ingest}"}
        allowed = await http.post(otlp, content=body.SerializeToString(), headers=headers)
    assert (refused, allowed.status_code) == ([401, 401, 401], 200)

    async with grpc.aio.insecure_channel(service.config.otlp_grpc) as channel:
        stub = TraceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="API key") as refusal:
            await stub.Export(body)
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await stub.Export(body, metadata=[("authorization", f"Bearer {ingest}")])


async def test_commands_of_this_machine_get_in_with_the_local_token(service: Service) -> None:
    service.keys.create(Role.READ)
    running = locate.find(service.config.data)
    assert running is not None
    async with client(service, authorization=f"Bearer {running.token}") as http:
        assert (await http.get("/api/v1/targets")).status_code == 200
    assert (service.config.data / locate.FILE).stat().st_mode & 0o777 == 0o600


async def test_taken_otlp_port_is_a_warning_and_a_metric(tmp_path: Path) -> None:
    settings = config(tmp_path / "data")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", int(settings.otlp_http.rpartition(":")[2])))
        squatter.listen()
        service = Service(settings)
        try:
            await service.listen()
            async with client(service) as http:
                metrics = (await http.get("/metrics")).text
                ready = await http.get("/readyz")
        finally:
            await service.stop()
    assert 'tidegauge_listener_up{listener="otlp_http"} 0.0' in metrics
    assert 'tidegauge_listener_up{listener="otlp_grpc"} 1.0' in metrics
    assert (ready.status_code, ready.json()["problems"]) == (200, [])
    assert "is taken by another process" in ready.json()["warnings"][0]


async def test_taken_main_port_does_not_start(tmp_path: Path) -> None:
    settings = config(tmp_path / "data")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", int(settings.listen.rpartition(":")[2])))
        squatter.listen()
        service = Service(settings)
        try:
            with pytest.raises(AddressTaken, match="is taken by another process"):
                await service.listen()
        finally:
            await service.stop()


async def test_an_address_that_others_reach_needs_a_key(tmp_path: Path) -> None:
    service = Service(config(tmp_path / "data", otlp_http="0.0.0.0:0"))
    try:
        with pytest.raises(NotSafeToListen, match="make one with 'tidegauge keys create'"):
            await service.listen()
    finally:
        await service.stop()


async def test_stopping_twice_and_before_the_start_is_fine(tmp_path: Path) -> None:
    service = Service(config(tmp_path / "data"))
    await service.stop()
    await service.stop()


async def test_loops_start_and_stop_with_nothing_to_do(service: Service) -> None:
    service.start_loops()
    await asyncio.sleep(0.5)
    async with client(service) as http:
        assert (await http.get("/readyz")).status_code == 200


async def test_what_metrics_serves_is_written_to_the_configured_endpoint(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as far:
        url = f"http://127.0.0.1:{far.sockets[0].getsockname()[1]}/api/v1/write"
        endpoint = {"url": url, "protocol": "1.0", "interval": 0.1, "labels": {"cluster": "eu-7"}}
        made = Service(config(tmp_path / "data", remote_write=[endpoint]))
        made.start_loops()
        async with asyncio.timeout(20):
            while not received:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await made.stop()
    assert b"tidegauge_build_info" in unsnapped(received[0])
    assert b"eu-7" in unsnapped(received[0])


async def test_bodies_that_come_in_pieces_or_are_large_arrive_whole_and_others_are_let_go(service: Service) -> None:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    now = int(service.clock.now() * 1e9)
    for number in range(1, 4):
        span = scope.spans.add(name="chat", trace_id=bytes([number] * 16), span_id=bytes([number] * 8))
        span.start_time_unix_nano = span.end_time_unix_nano = now
        span.attributes.add(key="note").value.string_value = str(number) * 800_000
    body = request.SerializeToString()

    async def in_pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50_000):
            yield body[at : at + 50_000]
            await asyncio.sleep(0)

    headers = {"content-type": "application/x-protobuf"}
    async with client(service) as http:
        answer = await http.post("/v1/traces", content=in_pieces(), headers=headers)
        again = await http.post("/v1/traces", content=body, headers=headers)
    assert (answer.status_code, again.status_code) == (200, 200)
    assert service.reads.query("counts")[0]["spans"] == 3
    # A sender that goes away in the middle leaves nothing behind.
    host, port = service.config.listen.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n" + bytes(300_000))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    (held,) = {listener.held for listener in service._http if listener.port == int(port)}
    async with asyncio.timeout(10):
        while held.bytes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
