"""A request's log records, in the API and on its page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_world import NOW, World, at, call, trace_id, two_tenants, world

from service.auth import Role
from service.request_view import MAX_LOGS


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def record(number: int, seconds: float, **said: Any) -> dict[str, Any]:
    return {
        "record_id": f"r{seconds}",
        "trace_id": trace_id(number),
        "time": at(NOW - 100 + seconds),
        "observed_time": at(NOW - 100 + seconds),
        "severity": "WARN",
        "body": f"at {seconds}",
        "attributes": json.dumps({"log": {"cart": 3}}),
        **said,
    }


async def test_a_trace_has_its_log_records_in_their_order(here: World) -> None:
    here.calls(call(1), call(2))
    here.put("log_records", [record(1, 2), record(1, 1, event_name="checkout"), record(2, 1.5)])
    view = await here.json(f"/api/v1/requests/{trace_id(1)}")
    assert [(item["body"], item["event_name"]) for item in view["logs"]] == [("at 1", "checkout"), ("at 2", None)]
    assert (view["logs"][0]["attributes"], view["logs_truncated"]) == ({"log": {"cart": 3}}, False)


async def test_log_records_past_the_limit_are_said_to_be_missing(here: World) -> None:
    here.calls(call(1))
    here.put("log_records", [record(1, number / 1000) for number in range(MAX_LOGS + 1)])
    view = await here.json(f"/api/v1/requests/{trace_id(1)}")
    assert (len(view["logs"]), view["logs_truncated"]) == (MAX_LOGS, True)


async def test_log_records_of_another_tenant_are_not_shown(here: World) -> None:
    two_tenants(here)
    here.put("log_records", [record(1, 1, tenant="a"), record(1, 1.1, tenant="b"), record(1, 1.2)])
    key = here.keys.create(Role.READ, tenants=["a"])[1]
    view = await here.json(f"/api/v1/requests/{trace_id(1)}", key)
    assert [item["body"] for item in view["logs"]] == ["at 1", "at 1.2"]


async def test_the_page_of_a_request_shows_its_log_records_escaped(here: World) -> None:
    here.calls(call(1))
    here.put("log_records", [record(1, 1, body="<b>no discount</b>")])
    page = (await here.get(f"/requests/{trace_id(1)}", accept="text/html")).text
    assert "&lt;b&gt;no discount&lt;/b&gt;" in page
    assert "Log records" in page


async def test_a_page_without_log_records_has_no_place_for_them(here: World) -> None:
    here.calls(call(1))
    assert "Log records" not in (await here.get(f"/requests/{trace_id(1)}")).text
