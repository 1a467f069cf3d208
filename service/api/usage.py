"""Usage: requests, tokens and cost by dimensions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from service.api.answers import Answer
from service.api.parameters import Text, Window, filters_of, once, shown_window
from service.auth import Caller, Gate, Role
from service.context import Context
from store.reads_pages import Pages
from store.scope import Selection

BACK_SECONDS = 86400.0


class UsageFilters(Window):
    """Which requests: those since `from` (a day ago, if not said)."""

    group_by: Text = Field("tenant,model", description="Dimensions, separated by commas")
    tenant: Text | None = None
    model: Text | None = None
    service: Text | None = None
    operation: Text | None = None
    provider: Text | None = None
    environment: Text | None = None
    prompt_name: Text | None = None
    prompt_version: Text | None = None


def router(context: Context, gate: Gate) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["usage"], dependencies=[Depends(once)])
    pages = Pages(context.reads)

    @routes.get("/usage")
    def usage(
        caller: Annotated[Caller, Depends(gate.dependency(Role.READ))], chosen: Annotated[UsageFilters, Query()]
    ) -> Response:
        """Sums over requests, each counted once however many spans describe it; what none of them said is null."""
        start, end = chosen.range(context.clock.now(), BACK_SECONDS)
        groups = [name.strip() for name in chosen.group_by.split(",") if name.strip()]
        selection = Selection(filters_of(chosen, "group_by"), start, end)
        rows = pages.usage(caller.scope, selection, list(dict.fromkeys(groups)))
        return Answer({**shown_window(start, end), "group_by": groups, "usage": rows})

    return routes
