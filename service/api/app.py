"""The HTTP application: REST under `/api/v1`, health and metrics, and the console at `/`."""

from typing import Any

from fastapi import FastAPI

from service.api import arrivals, clients, drift, fleet, health, incidents, problems, requests, scores, usage
from service.api.guard import Guard
from service.auth import Gate, KeyStore
from service.console import pages
from service.context import Context
from service.telemetry import FASTAPI

PREFIX = "/api/v1"


def build_api(
    context: Context, keys: KeyStore | None, *, require_keys: bool = False, local_token: str | None = None
) -> FastAPI:
    """The application over the running service.

    Without keys everything is allowed, to who reaches it by a loopback name; with `require_keys`, nothing is.  The
    application's telemetry routes (`/v1/…`, added by the caller) take a key of role `ingest` once there are keys.
    """
    app = FastAPI(
        title="Tidegauge",
        version=context.version,
        description="Requests to large language models, their scores, drift and incidents.",
        docs_url=None,
        redoc_url=None,
        telemetry=FASTAPI,
    )
    gate = Gate(keys, required=require_keys, local_token=local_token)
    app.state.gate = gate
    problems.install(app)
    for part in (requests, scores, drift, incidents, usage, fleet, arrivals):
        app.include_router(part.router(context, gate), prefix=PREFIX)
    app.include_router(clients.router(context, gate))
    app.include_router(health.router(context, gate))
    console = pages.Console(context)
    app.state.error_page = console.error
    app.include_router(pages.router(console, gate))
    app.mount("/static", pages.static())
    app.add_middleware(Guard, **_guarded(context, gate))
    return app


def build_front(context: Context, gate: Gate) -> FastAPI:
    """What is served where nothing but OTLP is expected: the telemetry routes (added by the caller), and what SDKs ask
    besides."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, telemetry=FASTAPI)
    problems.install(app)
    app.include_router(clients.router(context, gate))
    app.add_middleware(Guard, only_otlp=True, **_guarded(context, gate))
    return app


def _guarded(context: Context, gate: Gate) -> dict[str, Any]:
    return {
        "gate": gate,
        "public_url": context.public_url,
        "ledger": context.ledger,
        "cors_origins": context.cors_origins,
    }
