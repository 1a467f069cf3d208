"""Clients switch by changing only the host: every request of seven recorded clients, as it was sent."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from front_kit import body_of, config, front, headers_of, main, recorded

from service.auth import Role
from service.runtime import Service

CLIENTS = ("langfuse", "logfire", "mlflow", "oai-v2-latest", "openinference", "traceloop", "vercel-ai")
WITHOUT_KEY = {"mlflow", "oai-v2-latest", "vercel-ai"}
# Minutes after the last of the recordings.
RECORDED_NOW = 1_795_470_000.0
# Requests that name what nobody here has: a prompt, and a place for files that we never gave.
NOT_HERE = ("/api/public/v2/prompts/", "/upload/", "/api/public/media/")


class RecordedClock:
    def now(self) -> float:
        return RECORDED_NOW

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all: it has no keys but while `key` is used."""
    made = Service(config(tmp_path_factory.mktemp("clients") / "data"), clock=RecordedClock())
    yield made
    asyncio.run(made.stop())


@pytest.fixture
def key(service: Service) -> Iterator[str]:
    _, text = service.keys.create(Role.INGEST)
    yield text
    service.keys.path.unlink()


async def send(service: Service, client: str, request: dict[str, Any], key: str) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield body_of(client, request)

    chunked = "transfer-encoding" in request["headers"]
    async with front(service) as http:
        return await http.request(
            request["method"],
            request["path"],
            content=chunks() if chunked else body_of(client, request),
            headers=headers_of(request, key),
        )


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_request_of_a_recorded_client_is_served_with_its_way_of_showing_a_key(
    service: Service, key: str, client: str
) -> None:
    asked = [request for request in recorded(client) if not request["path"].startswith(NOT_HERE)]
    statuses = {(await send(service, client, request, key)).status_code for request in asked}
    assert statuses <= ({401} if client in WITHOUT_KEY else {200, 202}), statuses
    wrong = {(await send(service, client, request, "wrong")).status_code for request in asked}
    assert wrong == {401}


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_request_of_a_recorded_client_is_served_where_no_key_is_needed(
    service: Service, client: str
) -> None:
    asked = [request for request in recorded(client) if not request["path"].startswith(NOT_HERE)]
    statuses = {(await send(service, client, request, "any")).status_code for request in asked}
    assert statuses <= {200, 202}


async def test_a_recorded_scores_request_of_langfuse_is_stored_once(service: Service) -> None:
    request = next(request for request in recorded("langfuse") if request["path"] == "/api/public/scores")
    answers = [await send(service, "langfuse", request, "any") for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(202, {"message": "Accepted"})] * 2
    async with main(service) as http:
        scores = (await http.get("/api/v1/scores")).json()["scores"]
    assert {(row["evaluator"], row["value"], row["label"], row["source"]) for row in scores} == {
        ("helpfulness", 0.8, None, "api"),
        ("verdict", None, "good", "api"),
    }


async def test_scores_that_cannot_be_taken_are_named_and_the_others_stored(service: Service) -> None:
    trace = "5c8ef64f8aca18d73d396080855460dd"
    good = {"id": "1", "name": "ok", "value": 1, "dataType": "BOOLEAN", "traceId": trace}
    async with main(service) as http:
        answer = await http.post("/api/public/scores", json=[good, {"id": "2", "name": "no subject", "value": 1}])
        batch = await http.post(
            "/api/public/ingestion",
            json={"batch": [
                {"id": "a", "type": "score-create", "body": {**good, "id": "3"}},
                {"id": "b", "type": "trace-create", "body": {}},
            ]},
        )  # fmt: skip
        one = await http.post("/api/public/scores", json={"name": "x", "value": 1, "traceId": trace})
    assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (207, 1, 1)
    assert "trace_id" in answer.json()["errors"][0]["message"]
    assert batch.json() == {
        "successes": [{"id": "a", "status": 201}],
        "errors": [{"id": "b", "status": 400, "message": "'trace-create' is not taken here; send traces over OTLP"}],
    }
    assert (one.status_code, one.json()["detail"]) == (400, "key: Field required")


async def test_files_of_clients_are_not_kept_and_nobody_waits_for_them(service: Service) -> None:
    media = next(request for request in recorded("langfuse") if request["path"] == "/api/public/media")
    image = recorded("traceloop")[0]
    told = (await send(service, "langfuse", media, "any")).json()
    assert told == {"mediaId": "a3-kNPkqi4CqsC2b8aEuSf", "uploadUrl": None}
    url = (await send(service, "traceloop", image, "any")).json()["url"]
    async with front(service) as http:
        # Larger than other bodies may be.
        sent = await http.post(url, content=b"x" * 3_000_000)
    assert sent.status_code == 200
    async with main(service) as http:
        listed = (await http.get("/api/v1/arrivals")).json()["items"]
    assert "not kept: file" in {row["fate"] for row in listed}
