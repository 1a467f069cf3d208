"""A key bound to tenants, over every transport and for every signal."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from front_kit import PROTOBUF, SetClock, config, front, logs, main, traces
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from service.auth import Role
from service.runtime import Service

Send = Callable[[Service, str, Message], Awaitable[Any]]
STORED = {"traces": "SELECT tenant FROM spans", "logs": "SELECT tenant FROM log_records"}


async def over_http(service: Service, key: str, request: Message) -> Any:
    signal, answer = (
        ("logs", ExportLogsServiceResponse)
        if isinstance(request, ExportLogsServiceRequest)
        else ("traces", ExportTraceServiceResponse)
    )
    async with front(service, authorization=f"Bearer {key}") as http:
        response = await http.post(f"/v1/{signal}", content=request.SerializeToString(), headers=PROTOBUF)
    assert response.status_code == 200
    return answer.FromString(response.content)


async def over_grpc(service: Service, key: str, request: Message) -> Any:
    stub: Any = LogsServiceStub if isinstance(request, ExportLogsServiceRequest) else TraceServiceStub
    async with grpc.aio.insecure_channel(service.config.otlp_grpc) as channel:
        return await stub(channel).Export(request, metadata=[("api_key", key)])


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    made: list[Service] = []

    async def starting(mismatch: str) -> Service:
        settings = config(tmp_path / "data", otlp={"tenant_mismatch": mismatch, "logs": "all"})
        made.append(Service(settings, clock=SetClock()))
        await made[-1].listen()
        return made[-1]

    yield starting
    for service in made:
        await service.stop()


def stored(service: Service, signal: str) -> list[str | None]:
    rows = service.database.cursor().execute(f"{STORED[signal]} ORDER BY tenant").fetchall()
    return [tenant for (tenant,) in rows]


def value(service: Service, family: str, **labels: str) -> float:
    return service.registry.get_sample_value(family, labels) or 0.0


@pytest.mark.parametrize("send", [over_http, over_grpc], ids=["http", "grpc"])
@pytest.mark.parametrize(("signal", "make"), [("traces", traces), ("logs", logs)])
async def test_a_key_of_one_tenant_gives_it_to_all_it_sends(
    start: Callable[..., Awaitable[Service]], send: Send, signal: str, make: Callable[..., Message]
) -> None:
    service = await start("override")
    _, key = service.keys.create(Role.INGEST, tenants=["a"])
    answer = await send(service, key, make("a", "b", None))
    assert (stored(service, signal), answer.HasField("partial_success")) == (["a", "a", "a"], False)
    assert value(service, "tidegauge_ingest_tenant_overridden_total", signal=signal) == 1


@pytest.mark.parametrize("send", [over_http, over_grpc], ids=["http", "grpc"])
@pytest.mark.parametrize(("signal", "make"), [("traces", traces), ("logs", logs)])
async def test_a_key_of_one_tenant_may_refuse_what_is_anothers(
    start: Callable[..., Awaitable[Service]], send: Send, signal: str, make: Callable[..., Message]
) -> None:
    service = await start("reject")
    _, key = service.keys.create(Role.INGEST, tenants=["a"])
    partial = (await send(service, key, make("a", "b", None))).partial_success
    rejected = partial.rejected_spans if signal == "traces" else partial.rejected_log_records
    assert (stored(service, signal), rejected) == (["a", "a"], 1)
    assert "1: it names a tenant that the API key is not bound to" in partial.error_message


@pytest.mark.parametrize("send", [over_http, over_grpc], ids=["http", "grpc"])
async def test_data_of_a_key_of_several_tenants_names_one_of_them(
    start: Callable[..., Awaitable[Service]], send: Send
) -> None:
    service = await start("override")
    _, key = service.keys.create(Role.INGEST, tenants=["a", "b"])
    partial = (await send(service, key, traces("a", "b", "c", None))).partial_success
    assert (stored(service, "traces"), partial.rejected_spans) == (["a", "b"], 2)
    reasons = {
        reason: value(service, "tidegauge_ingest_rejected_spans_total", reason=reason)
        for reason in ("tenant_mismatch", "tenant_missing")
    }
    assert reasons == {"tenant_mismatch": 1, "tenant_missing": 1}


async def test_the_user_of_basic_chooses_among_the_keys_tenants_and_no_other(
    start: Callable[..., Awaitable[Service]],
) -> None:
    service = await start("override")
    _, key = service.keys.create(Role.INGEST, tenants=["a", "b"])
    async with front(service) as http:
        for number, user in enumerate(("a", "c"), 1):
            body = traces(None, first=number).SerializeToString()
            await http.post("/v1/traces", content=body, headers=PROTOBUF, auth=(user, key))
    assert stored(service, "traces") == ["a"]


async def test_an_unbound_key_and_no_key_say_what_they_like(start: Callable[..., Awaitable[Service]]) -> None:
    service = await start("reject")
    await over_http(service, "any", traces("a", None))
    _, key = service.keys.create(Role.INGEST)
    await over_http(service, key, traces("b", None, first=10))
    assert stored(service, "traces") == ["a", "b", None, None]


async def test_a_log_record_cannot_put_content_or_scores_on_another_tenants_span(
    start: Callable[..., Awaitable[Service]],
) -> None:
    service = await start("override")
    _, admin = service.keys.create(Role.ADMIN)
    await over_http(service, admin, traces("victim"))
    _, key = service.keys.create(Role.INGEST, tenants=["attacker"])
    attack = ExportLogsServiceRequest()
    for name in ("gen_ai.client.inference.operation.details", "gen_ai.evaluation.result"):
        record = (
            attack.resource_logs.add()
            .scope_logs.add()
            .log_records.add(trace_id=(1).to_bytes(16, "big"), span_id=(1).to_bytes(8, "big"), event_name=name)
        )
        said = {
            "tenant.id": "victim",
            "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"forged"}]}]',
            "gen_ai.evaluation.name": "forged",
            "gen_ai.evaluation.score.label": "bad",
        }
        for attribute, text in said.items():
            record.attributes.add(key=attribute).value.string_value = text
    await over_http(service, key, attack)
    _, victims = service.keys.create(Role.READ, tenants=["victim"])
    async with main(service, authorization=f"Bearer {victims}") as http:
        trace = (await http.get(f"/api/v1/requests/{1:032x}")).json()
        scores = (await http.get("/api/v1/scores")).json()["scores"]
    assert trace["spans"][0]["output_messages"] is None
    assert (scores, trace["scores"]) == ([], [])
    assert stored(service, "logs") == ["attacker", "attacker"]
