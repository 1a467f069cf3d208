"""Every route that the service answers is in the documents, and the API page lists no other."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from collector.otlp.http import router
from service.config import Config
from service.runtime import Service

DOCS = Path(__file__).parents[1] / "docs"
API = "/api/v1/"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    running = Service(Config(data=tmp_path))
    yield running
    await running.stop()


def routes(service: Service) -> set[tuple[str, str]]:
    """Method and path of everything that `/openapi.json` tells."""
    paths = service.app.openapi()["paths"].items()
    return {(method.upper(), path) for path, methods in paths for method in methods}


async def test_the_api_page_lists_the_routes_that_there_are(service: Service) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) ([^`?]+)`", page, re.MULTILINE))
    served = {(method, path.removeprefix(API)) for method, path in routes(service) if path.startswith(API)}
    assert ("GET", "requests") in served
    assert listed == served


async def test_every_other_route_is_named_on_a_page(service: Service) -> None:
    named = {path for page in DOCS.glob("*.md") for path in re.findall(r"/[a-z0-9/.]+", page.read_text("utf-8"))}
    others = {path for _, path in routes(service) if not path.startswith(API)}
    otlp = {route.path for route in router(service.receiver).routes if isinstance(route, APIRoute)}
    assert {"/metrics", "/v1/traces"} <= others | otlp
    assert (others | otlp) - named == set()
