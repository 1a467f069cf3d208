"""`/metrics`, `/healthz` and `/readyz`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.responses import PlainTextResponse, Response

from service.api.answers import Answer
from service.auth import Caller, Gate, Role
from service.context import Context


def router(context: Context, gate: Gate) -> APIRouter:
    """Health answers without a key, so that an orchestrator needs none; metrics name tenants, and take one."""
    routes = APIRouter(tags=["health"])
    unbound = Depends(gate.unbound(Role.READ))

    @routes.get("/metrics", response_class=PlainTextResponse)
    def metrics(caller: Annotated[Caller, unbound], accept: Annotated[str, Header()] = "") -> Response:
        """Every metric family, in the text format or OpenMetrics."""
        body, content_type = context.render_metrics(accept)
        return Response(body, headers={"content-type": content_type})

    @routes.get("/healthz")
    def healthz() -> Response:
        """The process answers."""
        return Answer({"status": "ok", "version": context.version})

    @routes.get("/readyz")
    def readyz() -> Response:
        """200 if everything works, else 503 and what does not."""
        problems = context.problems()
        status = "not ready" if problems else "ready"
        body = {"status": status, "problems": problems, "warnings": context.warnings()}
        return Answer(body, 503 if problems else 200)

    return routes
