"""Every route of the REST API over a real store."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_world import MODEL, NOW, TARGET, World, at, call, drift_row, tick, trace_id, two_tenants, world

READS = (
    "/api/v1/scores", "/api/v1/scores/summary", "/api/v1/scores/summary?group_by=tenant,model&interval=5m",
    "/api/v1/evaluators", "/api/v1/requests", f"/api/v1/requests/{trace_id(1)}", "/api/v1/drift",
    "/api/v1/drift/result-a", "/api/v1/targets", "/api/v1/catalog", "/api/v1/incidents",
    "/api/v1/incidents/incident-a", "/api/v1/usage", "/api/v1/usage?group_by=service",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def parse(text: str) -> Any:
    """JSON that has no NaN and no infinity."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("path", READS)
async def test_every_read_route_answers_with_json(here: World, path: str) -> None:
    two_tenants(here)
    response = await here.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert parse(response.text)


# --- problem documents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/api/v1/nowhere", 404, "There is nothing at /api/v1/nowhere."),
        ("/api/v1/requests/0", 404, "There is no such trace."),
        ("/api/v1/alerts/webhook", 405, "/api/v1/alerts/webhook does not take GET."),
        ("/api/v1/requests?tenat=a", 400, "'tenat' is no parameter here; did you mean 'tenant'?"),
        ("/api/v1/catalog?zzz=1", 400, "'zzz' is no parameter here; there are kind, origin"),
        ("/api/v1/targets?x=1", 400, "'x' is no parameter here; there are none"),
        ("/api/v1/requests?tenant=a&tenant=b", 400, "'tenant' is given more than once."),
        ("/api/v1/requests?limit=0", 400, "limit: Input should be greater than or equal to 1"),
        ("/api/v1/requests?from=-5m&to=-10m", 400, "from (-5m) is not before to (-10m)."),
        ("/api/v1/requests?cursor=AAAA", 400, "cursor: not one that this route gave"),
        ("/api/v1/scores/summary?interval=5", 400, "interval: '5' is no interval; write 30s, 5m, 1h or 7d"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else None,
)
async def test_an_error_is_a_problem_document(here: World, path: str, status: int, detail: str) -> None:
    response = await here.get(path)
    document = parse(response.text)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, document["status"], document["detail"]) == (status, status, detail)


@pytest.mark.parametrize("path", ["/api/v1/scores/summary?group_by=secret", "/api/v1/usage?group_by=secret"])
async def test_a_dimension_that_is_not_there_is_named(here: World, path: str) -> None:
    response = await here.get(path)
    assert response.status_code == 400
    assert "cannot group by 'secret'; there are " in response.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"scores": []}', b'{"key": "k", "evaluator": "e", "value": NaN}'])
async def test_a_malformed_body_is_a_problem(here: World, body: bytes) -> None:
    async with here.client() as client:
        response = await client.post("/api/v1/scores", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert parse(response.text)["errors"]


@pytest.mark.parametrize("chunks", [1, 40], ids=["with its length", "in chunks"])
async def test_a_body_past_the_bound_is_refused(here: World, chunks: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            yield b" " * 100_000

    content = b" " * 2_000_000 if chunks == 1 else parts()
    async with here.client() as client:
        headers = {"content-type": "application/json"}
        response = await client.post("/api/v1/scores", content=content, headers=headers)
    assert (response.status_code, response.json()["title"]) == (413, "Request Entity Too Large")


# --- requests -------------------------------------------------------------------------------------------------------


async def pages(here: World, path: str, member: str, between: Any = None) -> list[Any]:
    """All rows, a page at a time; calls `between` after each page."""
    rows, cursor = [], ""
    while True:
        page = await here.json(f"{path}{'&' if '?' in path else '?'}limit=3{cursor}")
        rows += page[member]
        if page["next_cursor"] is None:
            return rows
        cursor = f"&cursor={page['next_cursor']}"
        if between is not None:
            between(len(rows))


@pytest.mark.parametrize("sort", ["newest", "oldest", "time_to_first_token", "duration", "output_tokens", "cost"])
async def test_pages_show_each_request_once_while_others_arrive(here: World, sort: str) -> None:
    # Ties, nulls and a NaN in what is sorted by.
    for number in range(1, 11):
        first = None if number % 4 == 0 else float("nan") if number == 5 else number // 3
        here.calls(call(number, start=NOW - 500 + number // 2, ttft=first, duration_s=1.0 + number // 3))

    def arrive(seen: int) -> None:
        here.calls(call(100 + seen, start=NOW - 10), call(200 + seen, start=NOW - 900))

    rows = await pages(here, f"/api/v1/requests?sort={sort}", "requests", arrive)
    ids = [row["trace_id"] for row in rows]
    assert len(ids) == len(set(ids))
    assert {trace_id(number) for number in range(1, 11)} <= set(ids)


async def test_a_cursor_belongs_to_its_query(here: World) -> None:
    here.calls(*(call(number) for number in range(1, 6)))
    cursor = (await here.json("/api/v1/requests?limit=2"))["next_cursor"]
    response = await here.get(f"/api/v1/requests?limit=2&tenant=a&cursor={cursor}")
    assert response.status_code == 400
    assert "belongs to a query with other parameters" in response.json()["detail"]


async def test_the_slowest_first_token_comes_first_and_the_unknown_last(here: World) -> None:
    here.calls(call(1, ttft=1.0), call(2, ttft=None), call(3, ttft=9.0))
    rows = (await here.json("/api/v1/requests?sort=time_to_first_token"))["requests"]
    assert [row["trace_id"] for row in rows] == [trace_id(3), trace_id(1), trace_id(2)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=-2m", [1, 2]),
        ("from=-1h&to=-2m", [3]),
        ("to=now", [1, 2, 3]),
        (f"from={NOW - 101}", [1, 2]),
        ("from=2027-01-15T07:58:00Z", [1, 2]),
        ("from=2027-01-15T08:58:00%2B01:00", [1, 2]),
        ("at=-10m", [3]),
        (f"at={NOW - 100:.0f}&model={MODEL}&target={TARGET}&sort=time_to_first_token", [1, 2]),
        ("target=gpu-9:8000", []),
        ("tenant=b", [2]),
    ],
)
async def test_times_and_filters_choose_requests(here: World, query: str, expected: list[int]) -> None:
    two_tenants(here)
    here.calls(call(3, start=NOW - 600))
    rows = (await here.json(f"/api/v1/requests?{query}"))["requests"]
    assert sorted(row["trace_id"] for row in rows) == [trace_id(number) for number in expected]


async def test_a_moment_shows_a_long_request_that_was_open_then(here: World) -> None:
    here.calls(call(1, start=NOW - 1000, duration_s=500.0), call(2, start=NOW - 1000, duration_s=5.0))
    rows = (await here.json(f"/api/v1/requests?at={NOW - 600}"))["requests"]
    assert [row["trace_id"] for row in rows] == [trace_id(1)]


async def test_a_list_holds_no_content(here: World) -> None:
    here.calls(call(1))
    assert "secret" not in (await here.get("/api/v1/requests")).text


# --- one trace ------------------------------------------------------------------------------------------------------


async def test_a_trace_shows_the_queue_at_that_second(here: World) -> None:
    two_tenants(here)  # the request runs from second 30 to 32 of the ticks, where as many wait as seconds passed
    view = await here.json(f"/api/v1/requests/{trace_id(1)}")
    (request,) = view["requests"]
    engine = request["engine"]
    (target,) = engine["targets"]
    assert (engine["by"], engine["certain"]) == ("engine span's instance", True)
    assert {name: state["requests_waiting"] for name, state in target["at"].items()} == {
        "start": 30.0,
        "first_token": 30.0,
        "end": 32.0,
    }
    assert target["lifetime"] == {
        "ticks": 3,
        "max_requests_waiting": 32.0,
        "max_requests_running": 8.0,
        "max_kv_cache_usage_ratio": 0.32,
        "preemptions_during": 1.0,
    }
    assert [state["requests_waiting"] for state in target["ticks"]] == [float(second) for second in range(60)]


async def test_a_trace_has_its_spans_content_and_scores(here: World) -> None:
    two_tenants(here)
    view = await here.json(f"/api/v1/requests/{trace_id(1)}")
    assert [span["vantage"] for span in view["spans"]] == ["client", "engine"]
    assert view["requests"][0]["input_messages"][0]["parts"][0]["content"] == "secret of a"
    assert view["requests"][0]["engine_queue_time_s"] == 0.3
    assert [score["score_id"] for score in view["scores"]] == ["score-a"]


async def test_an_engine_found_by_model_alone_is_a_guess_among_all_replicas(here: World) -> None:
    here.calls(call(1)[:1])
    here.put("engine_state", [tick(NOW - 101, 5, 0, target) for target in ("gpu-1:8000", "gpu-2:8000")])
    engine = (await here.json(f"/api/v1/requests/{trace_id(1)}"))["requests"][0]["engine"]
    assert (engine["by"], engine["certain"]) == ("model: one of 2 replicas", False)
    assert [target["target"] for target in engine["targets"]] == ["gpu-1:8000", "gpu-2:8000"]


async def test_an_engine_is_found_by_the_address_that_the_client_called(here: World) -> None:
    attributes = json.dumps({"span": {"server.address": "gpu-2", "server.port": 8000}})
    here.calls(call(1, attributes=attributes)[:1])
    here.put("engine_state", [tick(NOW - 101, 5, 0, target) for target in ("gpu-1:8000", "gpu-2:8000")])
    engine = (await here.json(f"/api/v1/requests/{trace_id(1)}"))["requests"][0]["engine"]
    assert (engine["by"], engine["certain"]) == ("instance (server.address)", True)
    assert [target["target"] for target in engine["targets"]] == ["gpu-2:8000"]


@pytest.mark.parametrize(
    ("node", "cards"), [("gpu-1", ["GPU-x"]), ("gpu-2", []), ("lab", [])], ids=["its node", "another", "a lone card"]
)
async def test_only_the_engines_own_gpu_is_joined(here: World, node: str, cards: list[str]) -> None:
    two_tenants(here)
    here.put("gpu_state", [{"time": at(NOW - 100), "gpu": "GPU-x", "node": node, "power_watts": 300.0}])
    gpu = (await here.json(f"/api/v1/requests/{trace_id(1)}"))["requests"][0]["gpu"]
    assert [card["gpu"] for card in gpu["gpus"]] == cards
    assert gpu["note"]


# --- scores ---------------------------------------------------------------------------------------------------------

THUMB = {"key": "click-1", "evaluator": "thumbs", "value": 1.0, "trace_id": trace_id(1), "span_id": f"{1:016x}"}


async def test_feedback_is_stored_once_however_often_it_is_sent(here: World) -> None:
    here.calls(call(1))
    first = await here.post("/api/v1/scores", THUMB)
    again = await here.post("/api/v1/scores", {**THUMB, "value": 0.0})
    assert first.json() | {"stored": 0, "duplicates": 1} == again.json()
    (row,) = (await here.json("/api/v1/scores?evaluator=thumbs"))["scores"]
    kept = {name: row[name] for name in ("value", "tenant", "service", "request_model", "source", "source_key")}
    assert kept == {
        "value": 1.0, "tenant": "a", "service": "bot", "request_model": MODEL, "source": "human",
        "source_key": "click-1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"value": None}, "a score has a value, a label, or both"),
        ({"trace_id": None, "span_id": None}, "say what is scored"),
        ({"trace_id": "xyz"}, "pattern"),
        ({"key": ""}, "at least 1 character"),
        ({"valeu": 1}, "Extra inputs"),
        ({"tenant": "b"}, "the trace is not of tenant 'b'"),
    ],
    ids=["no value", "no subject", "bad id", "no key", "typo", "other tenant"],
)
async def test_feedback_that_says_too_little_is_refused(here: World, change: dict[str, Any], detail: str) -> None:
    here.calls(call(1))
    response = await here.post("/api/v1/scores", THUMB | change)
    assert response.status_code == 422
    assert detail in response.json()["detail"]


async def test_means_come_with_n_an_interval_and_their_estimator(here: World) -> None:
    scores = [{**THUMB, "key": f"k{number}", "value": float(number < 3)} for number in range(10)]
    await here.post("/api/v1/scores", {"scores": scores})
    (row,) = (await here.json("/api/v1/scores/summary?group_by=evaluator"))["summary"]
    assert (row["evaluator"], row["mean"], row["n"], row["estimator"]) == ("thumbs", 0.3, 10, "wilson")
    assert 0.1 < row["ci_low"] < 0.3 < row["ci_high"] < 0.7


async def test_means_by_interval_say_when_each_began(here: World) -> None:
    times = {"k1": NOW - 700, "k2": NOW - 650, "k3": NOW - 100}
    scores = [{**THUMB, "key": key, "time": at(time).isoformat()} for key, time in times.items()]
    await here.post("/api/v1/scores", {"scores": scores})
    rows = (await here.json("/api/v1/scores/summary?interval=5m&from=-1h"))["summary"]
    assert [(row["interval_start"], row["n"]) for row in rows] == [
        ("2027-01-15T07:45:00Z", 2),
        ("2027-01-15T07:55:00Z", 1),
    ]


async def test_scores_are_paged_without_doubles(here: World) -> None:
    scores = [{**THUMB, "key": f"k{number}"} for number in range(8)]
    await here.post("/api/v1/scores", {"scores": scores})
    rows = await pages(here, "/api/v1/scores", "scores")
    assert len({row["score_id"] for row in rows}) == len(rows) == 8


# --- drift, usage, catalog, health ----------------------------------------------------------------------------------


async def test_drift_shows_the_latest_result_of_each_series_and_its_evidence(here: World) -> None:
    earlier = drift_row("a", result_id="earlier", round_time=at(NOW - 70), state="suspected", effect_size=0.1)
    here.put("drift_results", [earlier, drift_row("a"), drift_row("b", state="none")])
    rows = (await here.json("/api/v1/drift"))["drift"]
    assert [(row["slice"], row["state"]) for row in rows] == [("tenant=a", "confirmed"), ("tenant=b", "none")]
    one = await here.json(f"/api/v1/drift/{rows[0]['drift_id']}")
    assert [row["result_id"] for row in one["history"]] == ["result-a", "earlier"]
    assert one["evidence"]["distributions"]["current"] == {"hits": 20, "n": 50}
    assert "resume" not in one["evidence"]


async def test_drift_is_filtered_and_paged(here: World) -> None:
    here.put("drift_results", [drift_row(f"t{number}", result_id=f"r{number}") for number in range(7)])
    rows = await pages(here, "/api/v1/drift?state=confirmed", "drift")
    assert [row["slice"] for row in rows] == [f"tenant=t{number}" for number in range(7)]


async def test_usage_counts_each_request_once_and_says_null_for_the_unsaid(here: World) -> None:
    here.calls(call(1, tenant="a"), call(2, tenant="a"), call(3, tenant="b", cost_usd=None, status="error"))
    usage = (await here.json("/api/v1/usage?group_by=tenant"))["usage"]
    shown = [
        (row["tenant"], row["requests"], row["failed_requests"], row["output_tokens"], row["cost_usd"]) for row in usage
    ]
    assert shown == [("a", 2, 0, 40, 1.0), ("b", 1, 1, 20, None)]


async def test_the_catalog_holds_every_family(here: World) -> None:
    families = (await here.json("/api/v1/catalog?origin=store"))["families"]
    assert {"name": "tidegauge_drift_active", "kind": "gauge"}.items() <= families[0].items()


async def test_health_says_what_is_not_ready(here: World) -> None:
    assert (await here.get("/readyz")).status_code == 200
    here.problems.append("otlp_grpc: the port is taken")
    response = await here.get("/readyz")
    assert (response.status_code, response.json()["problems"]) == (503, ["otlp_grpc: the port is taken"])
    assert (await here.get("/healthz")).json() == {"status": "ok", "version": "9.9"}


async def test_metrics_are_served_with_their_content_type(here: World) -> None:
    here.context.metrics.counters.tidegauge_incidents_total.labels(status="firing").inc()
    response = await here.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4"
    assert 'tidegauge_incidents_total{status="firing"} 1.0' in response.text


async def test_openapi_lists_the_documented_routes(here: World) -> None:
    paths = (await here.json("/openapi.json"))["paths"]
    documented = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    mentioned = set(re.findall(r"`(?:GET |POST )?([^`\s]+)`", documented))
    missing = [path for path in paths if path.removeprefix("/api/v1/") not in mentioned]
    assert missing == []
