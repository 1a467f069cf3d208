"""Paths, methods, browsers and keys at the door of OTLP."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from front_kit import PROTOBUF, SetClock, config, front, main, metrics, traces

from service.auth import Role
from service.runtime import Service

PAGE = "https://app.example.com"
BODY = traces("a").SerializeToString()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = config(tmp_path_factory.mktemp("paths") / "data", otlp={"cors_origins": [PAGE]})
    made = Service(settings, clock=SetClock())
    yield made
    asyncio.run(made.stop())


@pytest.fixture
def key(service: Service) -> Iterator[str]:
    _, text = service.keys.create(Role.INGEST)
    yield text
    service.keys.path.unlink()


def refusals(service: Service) -> dict[tuple[str, str], int]:
    """Path and outcome of all requests that were not taken, and how many they were."""
    found: dict[tuple[str, str], int] = {}
    for row, entry in service.receiver.ledger.recent().requests.items():
        if row.outcome not in ("accepted", "partial"):
            found[row.path, row.outcome] = found.get((row.path, row.outcome), 0) + entry.count
    return found


@pytest.mark.parametrize(
    "path",
    ["/v1/traces", "/v1/traces/", "//v1//traces", "/api/public/otel/v1/traces", "/otlp/v1/traces", "/a/b/c/v1/traces/"],
)
@pytest.mark.parametrize("application", [front, main], ids=["otlp port", "main port"])
async def test_any_base_path_is_served(service: Service, application: Any, path: str) -> None:
    async with application(service) as http:
        answer = await http.post(f"{http.base_url}".rstrip("/") + path, content=BODY, headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")


async def test_a_signal_of_its_own_path_is_taken_below_a_base_path(service: Service) -> None:
    async with front(service) as http:
        answer = await http.post("/api/public/otel/v1/metrics", content=metrics().SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1", "/v1/traces/x", "/api/v1/traces", "/v2/traces"])
async def test_a_wrong_path_is_a_problem_document_and_in_the_ledger(service: Service, path: str) -> None:
    before = refusals(service).get((path, "not_found"), 0)
    async with front(service) as http:
        answer = await http.post(path, content=BODY, headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert refusals(service)[path, "not_found"] == before + 1


@pytest.mark.parametrize("application", [front, main], ids=["otlp port", "main port"])
async def test_only_what_is_sent_counts_as_a_wrong_path(service: Service, application: Any) -> None:
    before = refusals(service).get(("/no-such-page", "not_found"), 0)
    async with application(service) as http:
        await http.get("/no-such-page")
        await http.post("/no-such-page", content=BODY)
    assert refusals(service)["/no-such-page", "not_found"] == before + 1


async def test_what_might_be_a_key_in_a_wrong_path_is_not_kept(service: Service) -> None:
    async with front(service) as http:
        await http.post("/tg_12345678_abcdefghijklmnopqrstuvwxyz/v2/traces?api_key=abc", content=BODY)
    assert refusals(service)["/…/v2/traces", "not_found"] == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_answered_with_the_right_one(service: Service, method: str) -> None:
    async with front(service) as http:
        answer = await http.request(method, "/v1/traces")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# --- keys -----------------------------------------------------------------------------------------------------------


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", "Bearer {key}"),
        ("authorization", "bearer  {key}"),
        ("authorization", "{key}"),
        ("authorization", "basic"),
        ("x-api-key", "{key}"),
        ("api-key", "{key}"),
        ("api_key", "{key}"),
    ],
    ids=["bearer", "lower case", "bare", "basic", "x-api-key", "api-key", "api_key"],
)
async def test_a_key_is_taken_from_every_place_where_clients_put_one(
    service: Service, key: str, header: str, value: str
) -> None:
    given = basic("pk-lf-1", key) if value == "basic" else value.format(key=key)
    wrong = basic(key, "no") if value == "basic" else value.format(key="no")
    async with front(service) as http:
        answers = [
            (await http.post("/v1/traces", content=BODY, headers=PROTOBUF | {header: said})).status_code
            for said in (given, wrong)
        ]
    assert answers == [200, 401]


@pytest.mark.parametrize("said", ["", "Bearer", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"x:").decode()])
async def test_a_header_without_a_key_in_it_is_refused(service: Service, key: str, said: str) -> None:
    async with front(service) as http:
        answer = await http.post("/v1/traces", content=BODY, headers=PROTOBUF | {"authorization": said})
    assert (answer.status_code, answer.json()["detail"][:16]) == (401, "Send an API key:")


async def test_a_key_of_another_role_is_refused_and_in_the_ledger(service: Service, key: str) -> None:
    made, reading = service.keys.create(Role.READ)
    before = refusals(service).get(("/v1/traces", "unauthorized"), 0)
    async with front(service, authorization=f"Bearer {reading}") as http:
        answer = await http.post("/v1/traces", content=BODY, headers=PROTOBUF)
    assert (answer.status_code, made.key_id in answer.json()["detail"]) == (403, True)
    assert refusals(service)["/v1/traces", "unauthorized"] == before + 1


async def test_keys_are_never_in_the_ledger(service: Service, key: str) -> None:
    async with front(service, authorization=f"Bearer {key}") as http:
        await http.post("/v1/traces", content=BODY, headers=PROTOBUF)
        await http.post(f"/{key}/v1/traces", content=BODY, headers=PROTOBUF | {"user-agent": "a" * 500})
    recent = service.receiver.ledger.recent()
    known = service.keys.list()[-1].key_id
    assert {row.key for row in recent.requests} >= {known}
    assert key not in str(recent)
    assert max(len(row.client) for row in recent.requests) == 80


# --- browsers -------------------------------------------------------------------------------------------------------

ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


async def test_a_page_that_is_allowed_may_send(service: Service, key: str) -> None:
    async with front(service, origin=PAGE) as http:
        asked = await http.options("/v1/traces", headers=ASKS)
        sent = await http.post("/v1/traces", content=BODY, headers=PROTOBUF | {"x-api-key": key})
        refused = await http.post("/v1/traces", content=BODY, headers=PROTOBUF)
    shared = [answer.headers["access-control-allow-origin"] for answer in (asked, sent, refused)]
    assert shared == [PAGE, PAGE, PAGE]
    assert [asked.status_code, sent.status_code, refused.status_code] == [204, 200, 401]
    assert asked.headers["access-control-allow-headers"] == "content-type,x-api-key"


async def test_any_other_page_may_not(service: Service) -> None:
    async with front(service, origin="https://evil.example") as http:
        asked = await http.options("/v1/traces", headers=ASKS)
        sent = await http.post("/v1/traces", content=BODY, headers=PROTOBUF)
    assert [asked.status_code, sent.status_code] == [403, 403]
    assert "access-control-allow-origin" not in {*asked.headers, *sent.headers}


async def test_an_allowed_page_reaches_nothing_but_otlp(service: Service) -> None:
    async with main(service, origin=PAGE) as http:
        answer = await http.post("/api/v1/scores", json={})
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (403, False)
