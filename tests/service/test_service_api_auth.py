"""Who may call: keys, roles, tenants, and browsers of other sites."""

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_world import ADDRESS, NOW, SetClock, World, call, trace_id, two_tenants, world
from fastapi import FastAPI

from service.auth import KeyFileBroken, KeyStore, Role, UnknownKey

IDS = {"trace_id": trace_id(2), "drift_id": "result-b", "incident_id": "incident-b"}
CONSOLE = ("/", "/requests", "/requests/{trace_id}", "/drift", "/drift/{drift_id}", "/incidents",
           "/incidents/{incident_id}", "/targets")  # fmt: skip
MARKS_OF_B = ("secret of b", "answer to b", "refusal-b", "Alert-b", "session-b", "tenant=b", '"b"', ">b<", "result-b")
# What is about no tenant's rows.
WITHOUT_ROWS = {"/metrics", "/healthz", "/readyz", "/targets", *(f"/api/v1/{name}" for name in
                ("targets", "catalog", "evaluators"))}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        two_tenants(made)
        yield made


def read_routes(app: FastAPI) -> list[str]:
    """Every GET route of ours, with tenant b's ids in its path."""
    documented = [path for path, methods in app.openapi()["paths"].items() if "get" in methods]
    return [path.format(**IDS) for path in [*documented, *CONSOLE]]


async def marks_of_b(here: World, path: str, key: str) -> set[str]:
    """What the answer shows of tenant b."""
    text = (await here.get(path, key)).text.replace(path, "")
    return {mark for mark in MARKS_OF_B if mark in text}


async def test_no_read_route_shows_another_tenants_rows(here: World) -> None:
    _, bound = here.keys.create(Role.READ, tenants=["a"])
    _, free = here.keys.create(Role.READ)
    routes = read_routes(here.app)
    assert {path: await marks_of_b(here, path, bound) for path in routes} == {path: set() for path in routes}
    # The same marks are there for who may see them, so that this test can fail.
    shown = {path for path in routes if await marks_of_b(here, path, free)}
    assert shown == set(routes) - WITHOUT_ROWS


async def test_a_bound_key_sees_its_own_rows(here: World) -> None:
    _, key = here.keys.create(Role.READ, tenants=["a"])
    assert [row["tenant"] for row in (await here.json("/api/v1/requests", key))["requests"]] == ["a"]
    assert [row["tenant"] for row in (await here.json("/api/v1/usage", key))["usage"]] == ["a"]
    assert (await here.json(f"/api/v1/requests/{trace_id(1)}", key))["scores"][0]["score_id"] == "score-a"
    assert (await here.json("/api/v1/incidents", key))["incidents"][0]["incident_id"] == "incident-a"
    assert (await here.json("/api/v1/scores/summary", key))["summary"][0]["evaluator"] == "refusal-a"


async def test_another_tenants_engine_span_in_a_shared_trace_stays_hidden(here: World) -> None:
    mine, theirs = call(7, tenant="a"), call(7, tenant="b", start=NOW - 50)
    for span, number in zip(theirs, (8, 9), strict=True):
        span["span_id"] = f"{number:016x}"
    theirs[1]["parent_span_id"] = theirs[0]["span_id"]
    here.calls(mine, theirs)
    _, key = here.keys.create(Role.READ, tenants=["a"])
    spans = (await here.json(f"/api/v1/requests/{trace_id(7)}", key))["spans"]
    assert [span["span_id"] for span in spans] == [span["span_id"] for span in mine]


async def test_filters_do_not_widen_what_a_key_may_see(here: World) -> None:
    _, key = here.keys.create(Role.READ, tenants=["a"])
    assert (await here.json("/api/v1/requests?tenant=b", key))["requests"] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer tg_0_wrong"}, 401),
        ({"authorization": "Basic !!!"}, 401),
        ({"authorization": "Bearer {key}"}, 200),
        ({"x-api-key": "{key}"}, 200),
        ({"authorization": "basic"}, 200),
    ],
    ids=["none", "wrong", "broken basic", "bearer", "x-api-key", "basic password"],
)
async def test_a_key_is_taken_from_any_usual_place(here: World, headers: dict[str, str], status: int) -> None:
    _, key = here.keys.create(Role.READ)
    sent = {name: value.format(key=key) for name, value in headers.items()}
    if sent.get("authorization") == "basic":
        sent["authorization"] = "Basic " + base64.b64encode(f"anyone:{key}".encode()).decode()
    response = await here.get("/api/v1/requests", **sent)
    assert response.status_code == status
    if status == 401:
        assert response.headers["content-type"] == "application/problem+json"
        assert "Basic" in response.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("role", "reads", "sends"), [(Role.READ, 200, 403), (Role.INGEST, 403, 200), (Role.ADMIN, 200, 200)]
)
async def test_a_role_allows_what_it_says(here: World, role: Role, reads: int, sends: int) -> None:
    _, key = here.keys.create(role)
    score = {"key": "k", "evaluator": "thumbs", "value": 1, "trace_id": trace_id(1)}
    assert (await here.get("/api/v1/requests", key)).status_code == reads
    assert (await here.post("/api/v1/scores", score, key)).status_code == sends


@pytest.mark.parametrize("path", ["/metrics"])
async def test_what_shows_all_tenants_takes_an_unbound_key(here: World, path: str) -> None:
    _, bound = here.keys.create(Role.READ, tenants=["a"])
    _, free = here.keys.create(Role.READ)
    assert (await here.get(path, bound)).status_code == 403
    assert (await here.get(path, free)).status_code == 200


async def test_a_bound_key_scores_only_its_tenants_requests(here: World) -> None:
    _, key = here.keys.create(Role.INGEST, tenants=["a"])
    score = {"key": "k", "evaluator": "thumbs", "value": 1}
    assert (await here.post("/api/v1/scores", score | {"trace_id": trace_id(1)}, key)).status_code == 200
    assert (await here.post("/api/v1/scores", score | {"trace_id": trace_id(2)}, key)).status_code == 404
    # Not there yet: the key says whose it will be.
    await here.post("/api/v1/scores", score | {"trace_id": trace_id(99)}, key)
    _, free = here.keys.create(Role.READ)
    rows = (await here.json("/api/v1/scores?evaluator=thumbs", free))["scores"]
    assert sorted(row["tenant"] for row in rows) == ["a", "a"]


async def test_a_revoked_last_key_does_not_open_the_door(here: World) -> None:
    made, key = here.keys.create(Role.ADMIN)
    here.keys.revoke(made.key_id)
    assert (await here.get("/api/v1/requests", key)).status_code == 401


async def test_telemetry_takes_a_key_of_role_ingest_once_there_are_keys(here: World) -> None:
    _, key = here.keys.create(Role.READ)
    assert (await here.post("/v1/traces", {})).status_code == 401
    assert (await here.post("/v1/traces", {}, key)).status_code == 403


# --- browsers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8433", 200),
        ("localhost:8433", 200),
        ("[::1]:8433", 200),
        ("evil.example:8433", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
async def test_a_foreign_host_name_is_refused_where_no_key_is_needed(here: World, host: str, status: int) -> None:
    assert (await here.get("/api/v1/requests", host=host)).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": ADDRESS, "sec-fetch-site": "same-origin"}, 200),
        ({}, 200),
    ],
    ids=["other origin", "opaque origin", "cross-site", "own page", "no browser"],
)
async def test_a_page_of_another_site_cannot_post(here: World, headers: dict[str, str], status: int) -> None:
    score = {"key": "k", "evaluator": "thumbs", "value": 1, "trace_id": trace_id(1)}
    assert (await here.post("/api/v1/scores", score, **headers)).status_code == status


# --- the file of keys -----------------------------------------------------------------------------------------------


def test_only_a_hash_of_the_key_is_kept_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, SetClock())
    _, text = keys.create(Role.READ, name="grafana", tenants=["a"])
    kept = keys.path.read_text()
    assert text not in kept
    assert text.rpartition("_")[2] not in kept
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600


def test_a_running_service_sees_keys_made_by_another_process(tmp_path: Path) -> None:
    running, other = KeyStore(tmp_path, SetClock()), KeyStore(tmp_path, SetClock())
    assert running.any() is False
    made, text = other.create(Role.READ)
    found = running.find(text)
    assert found is not None
    assert found.key_id == made.key_id
    other.revoke(made.key_id)
    assert running.find(text) is None


def test_a_broken_file_of_keys_lets_nobody_in(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, SetClock())
    keys.path.write_text(json.dumps({"keys": [{"role": "emperor"}]}))
    with pytest.raises(KeyFileBroken, match=r"keys\.json cannot be read"):
        keys.any()


def test_revoking_an_unknown_key_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(UnknownKey, match=r"no key 'x'; `tidegauge keys list`"):
        KeyStore(tmp_path, SetClock()).revoke("x")


def test_a_key_cannot_be_bound_to_no_tenant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names at least one"):
        KeyStore(tmp_path, SetClock()).create(Role.READ, tenants=[])
