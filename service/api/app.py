"""The HTTP application: REST under `/api/v1`, health and metrics, and the console at `/`."""

from fastapi import FastAPI

from service.api import drift, fleet, health, incidents, problems, requests, scores, usage
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
    for part in (requests, scores, drift, incidents, usage, fleet):
        app.include_router(part.router(context, gate), prefix=PREFIX)
    app.include_router(health.router(context, gate))
    console = pages.Console(context)
    app.state.error_page = console.error
    app.include_router(pages.router(console, gate))
    app.mount("/static", pages.static())
    app.add_middleware(Guard, gate=gate, public_url=context.public_url)
    return app
