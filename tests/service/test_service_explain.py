"""Why do I not see my data: each reason that there is has its sentence, and tells no tenant of another."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from front_kit import NOW_NS, PROTOBUF, SetClock, config, front, main, traces
from typer.testing import CliRunner

from service.auth import Role
from service.cli import app
from service.runtime import Service

YEAR_NS = 366 * 86_400 * 10**9


def opened(directory: Path) -> Service:
    settings = config(
        directory / "data",
        otlp={"max_request_bytes": 20_000, "max_attribute_bytes": 300},
        privacy={"tenants": {"quiet": {"capture": "off"}}},
    )
    return Service(settings, clock=SetClock())


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = opened(tmp_path)
    yield made
    await made.stop()


async def send(service: Service, body: bytes, path: str = "/v1/traces", **headers: str) -> int:
    async with front(service) as http:
        return (await http.post(path, content=body, headers=PROTOBUF | headers)).status_code


async def ask(service: Service, query: str = "", **headers: str) -> dict[str, Any]:
    async with main(service, **headers) as http:
        answer = await http.get(f"/api/v1/explain{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def finding(service: Service, code: str, query: str = "") -> dict[str, Any]:
    """The one finding of this code."""
    found = (await ask(service, query))["findings"]
    (one,) = [item for item in found if item["code"] == code] or [{"code": [item["code"] for item in found]}]
    return one


async def test_a_wrong_key_in_what_an_sdk_asks_besides_otlp_is_a_refusal_too(service: Service) -> None:
    await wrong_key(service)
    texts = [item["text"] for item in (await ask(service))["findings"] if item["code"] == "unauthorized"]
    assert sorted(text.partition(" to ")[2].partition(" ")[0] for text in texts) == [
        "/api/public/projects",
        "/v1/traces",
    ]


async def test_nothing_arrived(service: Service) -> None:
    answer = await ask(service)
    assert (answer["seen"], [item["code"] for item in answer["findings"]]) == (False, ["nothing"])
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in answer["findings"][0]["fix"]


async def wrong_path(service: Service) -> None:
    await send(service, traces("a").SerializeToString(), "/v1/trace", **{"user-agent": "sdk/1.2"})


async def wrong_key(service: Service) -> None:
    service.keys.create(Role.INGEST)
    await send(service, b"", authorization="Bearer wrong")
    async with front(service) as http:
        await http.get("/api/public/projects", headers={"authorization": "Bearer wrong"})
    service.keys.path.unlink()


async def not_protobuf(service: Service) -> None:
    await send(service, b'{"a prompt": 1}')


async def wrong_type(service: Service) -> None:
    await send(service, b"", **{"content-type": "text/plain"})


async def too_large(service: Service) -> None:
    await send(service, b"x" * 30_000)


async def old_clock(service: Service) -> None:
    await send(service, traces("a", at=NOW_NS - 11 * YEAR_NS).SerializeToString())


async def fast_clock(service: Service) -> None:
    await send(service, traces("a", at=NOW_NS + YEAR_NS).SerializeToString())


async def foreign_tenant(service: Service) -> None:
    _, key = service.keys.create(Role.INGEST, tenants=["a", "b"])
    await send(service, traces("c").SerializeToString(), authorization=f"Bearer {key}")
    service.keys.path.unlink()


async def overridden(service: Service) -> None:
    _, key = service.keys.create(Role.INGEST, tenants=["a"])
    await send(service, traces("c").SerializeToString(), authorization=f"Bearer {key}")
    service.keys.path.unlink()


async def truncated(service: Service) -> None:
    request = traces("a")
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="huge").value.string_value = "x" * 2000
    await send(service, request.SerializeToString())


REASONS: dict[str, tuple[Callable[[Service], Awaitable[None]], str]] = {
    "not_found": (wrong_path, "1 request over http to /v1/trace came to a path that is none, the last at 08:00:00 UTC "
                              "from sdk/1.2: there is no POST of this path"),
    "unauthorized": (wrong_key, "refused for their key"),
    "malformed": (not_protobuf, "could not be read"),
    "unsupported": (wrong_type, "Content-Type 'text/plain' is not read"),
    "too_large": (too_large, "more than 20000 bytes"),
    "too_old": (old_clock, "1 span of service 'shop' was rejected: its start is absent or too long ago"),
    "in_the_future": (fast_clock, "1 span of service 'shop' was rejected: it ends in the future"),
    "tenant_mismatch": (foreign_tenant, "names a tenant that the API key is not bound to"),
    "overridden": (overridden, "named another tenant than their key's"),
    "truncated": (truncated, "Attributes longer than otlp.max_attribute_bytes were cut of service 'shop': 1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a service says to which all of it happened."""
    made = opened(tmp_path_factory.mktemp("unlucky"))

    async def everything() -> dict[str, Any]:
        for happen, _ in REASONS.values():
            await happen(made)
        return {item["code"]: item for item in (await ask(made))["findings"]}

    yield asyncio.run(everything())
    asyncio.run(made.stop())


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_has_its_sentence_and_what_to_do(unlucky: dict[str, Any], code: str) -> None:
    found = unlucky[code]
    assert found["count"] > 0
    assert REASONS[code][1] in found["text"]
    assert "a prompt" not in json.dumps(found)
    assert found.get("fix") or found["level"] == "note"


async def test_what_is_stored_is_told_with_its_link(service: Service) -> None:
    await send(service, traces("a").SerializeToString())
    answer = await ask(service, "?service=shop")
    assert answer["seen"] is True
    assert answer["findings"] == [
        {
            "code": "stored", "level": "ok", "count": 1, "link": f"{service.config.url()}/requests/{1:032x}",
            "text": "1 span of service 'shop' is stored, the latest from 2027-01-15 07:59:58 UTC",
        }
    ]  # fmt: skip


async def test_spans_that_are_no_model_calls_are_told_from_those_that_are(service: Service) -> None:
    request = traces(None)
    del request.resource_spans[0].scope_spans[0].spans[0].attributes[:]
    await send(service, request.SerializeToString())
    codes = [(item["code"], item["level"]) for item in (await ask(service))["findings"]]
    assert codes == [("no_requests", "problem"), ("no_tenant", "note"), ("stored", "ok")]


async def test_another_name_than_the_one_asked_for_is_offered(service: Service) -> None:
    await send(service, traces("acme", service="checkout").SerializeToString())
    assert (await finding(service, "other_service", "?service=chekout"))["fix"] == "did you mean 'checkout'?"
    assert "no tenant at all" not in (await finding(service, "other_tenant", "?tenant=b"))["text"]
    unknown = await ask(service, f"?trace_id={'ab' * 16}")
    assert (unknown["seen"], unknown["findings"][0]["code"]) == (False, "unknown_trace")
    assert (await ask(service, f"?trace_id={1:032X}"))["seen"] is True


async def test_a_tenant_that_no_bound_key_may_read_is_named(service: Service) -> None:
    await send(service, traces("b").SerializeToString())
    service.keys.create(Role.READ, tenants=["a"])
    _, admin = service.keys.create(Role.ADMIN)
    found = (await ask(service, authorization=f"Bearer {admin}"))["findings"]
    assert [(item["code"], item.get("fix")) for item in found] == [
        ("filtered", "tidegauge keys create --role read --tenant b"),
        ("stored", None),
    ]


async def test_content_that_is_kept_by_configuration_in_another_form_is_told(service: Service) -> None:
    await send(service, traces("quiet").SerializeToString())
    assert "are kept off" in (await finding(service, "withheld", "?tenant=quiet"))["text"]


async def test_a_port_that_somebody_else_has_is_told(service: Service) -> None:
    with socket.create_server(("127.0.0.1", int(service.config.otlp_grpc.rpartition(":")[2]))):
        await service.listen()
    found = await finding(service, "listener")
    assert service.config.otlp_grpc in found["text"]
    assert "otlp_grpc" in found["fix"]


# --- who may know ---------------------------------------------------------------------------------------------------


async def test_a_key_of_one_tenant_learns_nothing_of_another(service: Service) -> None:
    _, ours = service.keys.create(Role.INGEST, tenants=["a"])
    _, theirs = service.keys.create(Role.INGEST, tenants=["b"])
    for key, tenant, name in ((ours, "a", "mine"), (theirs, "b", "hidden")):
        said = {"authorization": f"Bearer {key}", "user-agent": f"{name}-agent"}
        await send(service, traces(tenant, service=name, first=ord(tenant)).SerializeToString(), **said)
        old = traces(tenant, service=name, at=NOW_NS - 11 * YEAR_NS)
        await send(service, old.SerializeToString(), **said)
        await send(service, b"x" * 30_000, **said)
    await send(service, b"", "/hidden/path")
    await send(service, b"", authorization="Bearer hidden")
    _, reads = service.keys.create(Role.READ, tenants=["a"])
    _, admin = service.keys.create(Role.ADMIN)
    paths = ["arrivals", "arrivals?service=hidden", "arrivals?tenant=b", "explain", "explain?tenant=b&service=hidden"]
    async with main(service, authorization=f"Bearer {reads}") as http:
        seen = [(await http.get(f"/api/v1/{path}")).text.replace("service 'hidden'", "") for path in paths]
    async with main(service, authorization=f"Bearer {admin}") as http:
        all_seen = [(await http.get(f"/api/v1/{path}")).text for path in paths]
    assert ["hidden" in text for text in seen] == [False] * len(paths)
    assert ["mine" in text for text in (seen[0], seen[3])] == [True, True]
    assert ["hidden" in text for text in all_seen] == [True] * len(paths)


async def test_failures_without_a_key_are_shown_to_admins_alone(service: Service) -> None:
    _, reads = service.keys.create(Role.READ)
    _, admin = service.keys.create(Role.ADMIN)
    await send(service, b"", authorization="Bearer wrong")
    await send(service, b"", "/wrong")
    codes = [
        {item["code"] for item in (await ask(service, authorization=f"Bearer {key}"))["findings"]}
        for key in (reads, admin)
    ]
    assert codes == [{"nothing"}, {"unauthorized", "not_found"}]


@pytest.mark.parametrize("path", ["arrivals", "explain"])
@pytest.mark.parametrize(("role", "status"), [(Role.INGEST, 403), (Role.READ, 200)])
async def test_it_takes_a_key_that_may_read(service: Service, path: str, role: Role, status: int) -> None:
    _, key = service.keys.create(role)
    async with main(service, authorization=f"Bearer {key}") as http:
        assert (await http.get(f"/api/v1/{path}")).status_code == status


# --- the command ----------------------------------------------------------------------------------------------------


def explain(service: Service, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", "--data", str(service.config.data), *arguments])


async def test_the_command_says_it_in_sentences_and_with_an_exit_code(service: Service) -> None:
    await service.listen()
    nothing = await asyncio.to_thread(explain, service)
    await wrong_path(service)
    await send(service, traces("a").SerializeToString())
    there = await asyncio.to_thread(explain, service, "--service", "shop")
    as_json = await asyncio.to_thread(explain, service, "--trace", f"{1:032x}", "--json")
    assert (nothing.exit_code, there.exit_code, as_json.exit_code) == (1, 0, 0)
    assert nothing.stdout.startswith("✗ No telemetry arrived since this service started; it listens on 127.0.0.1:")
    assert "✗ 1 request over http to /v1/trace" in there.stdout
    assert "✓ 1 span of service 'shop' is stored" in there.stdout
    assert json.loads(as_json.stdout)["seen"] is True


def test_without_a_service_it_says_so_and_who_has_its_ports(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        free = config(tmp_path / "data")
        (tmp_path / "tidegauge.yaml").write_text(
            json.dumps({"listen": free.listen, "otlp_http": free.otlp_http, "otlp_grpc": taken, "data": str(free.data)})
        )
        done = CliRunner().invoke(app, ["explain", "-c", str(tmp_path / "tidegauge.yaml"), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["seen"]) == (1, False)
    assert [item["code"] for item in found["findings"]] == ["not_running", "taken"]
    assert taken in found["findings"][1]["text"]


def test_check_live_says_what_arrived_too(tmp_path: Path) -> None:
    free = config(tmp_path / "data")
    (tmp_path / "tidegauge.yaml").write_text(
        json.dumps(
            {"listen": free.listen, "otlp_http": free.otlp_http, "otlp_grpc": free.otlp_grpc, "data": str(free.data)}
        )
    )
    done = CliRunner().invoke(app, ["check", "-c", str(tmp_path / "tidegauge.yaml"), "--live", "--json"])
    assert [item["code"] for item in json.loads(done.stdout)["arrivals"]] == ["not_running"]
