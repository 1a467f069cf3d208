"""Requests: a list of them, and one trace with all that explains it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from service.api.answers import Answer
from service.api.parameters import Page, Parameters, Text, filters_of, moment_of, once, paged, position
from service.api.problems import Problem
from service.auth import Caller, Gate, Role
from service.context import Context
from service.request_view import request_view
from store.reads_pages import Pages
from store.scope import Selection

AT_SECONDS = 60.0
Sort = Literal["newest", "oldest", "time_to_first_token", "duration", "output_tokens", "cost"]


class RequestFilters(Page):
    """Which requests."""

    tenant: Text | None = None
    model: Text | None = Field(None, description="The model that answered, else the one asked for")
    service: Text | None = None
    operation: Text | None = None
    provider: Text | None = None
    kind: Text | None = None
    status: Text | None = Field(None, description="`ok` or `error`")
    error_type: Text | None = None
    finish_reason: Text | None = None
    prompt_name: Text | None = None
    prompt_version: Text | None = None
    deployment: Text | None = None
    environment: Text | None = None
    region: Text | None = None
    session_id: Text | None = None
    user_id: Text | None = None
    trace_id: Text | None = None
    request_id: Text | None = None
    engine_instance: Text | None = None
    target: Text | None = Field(None, description="Served, or perhaps served, by this scraped target")
    at: Text | None = Field(None, description="Open within a minute of this time")
    sort: Sort = "newest"


class NoParameters(Parameters):
    """None."""


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["requests"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    pages = Pages(context.reads)

    @routes.get("/requests")
    def requests(caller: Annotated[Caller, read], chosen: Annotated[RequestFilters, Query()]) -> Response:
        """Requests without their content, a page at a time; `sort=time_to_first_token&at=…` for a moment's worst."""
        now = context.clock.now()
        place = position(chosen, now, float, str, str)
        at = moment_of("at", chosen.at, now)
        rows = pages.requests(
            caller.scope,
            Selection(filters_of(chosen, "sort", "at", "target"), *place.window),
            sort=chosen.sort,
            limit=chosen.limit + 1,
            after=place.after,
            open_in=None if at is None else (at - AT_SECONDS, at + AT_SECONDS),
            target=chosen.target,
        )
        shown, cursor = paged(chosen, place, rows, lambda row: (row["page_key"], row["trace_id"], row["span_id"]))
        for row in shown:
            del row["page_key"]
        return Answer({"requests": shown, "next_cursor": cursor})

    @routes.get("/requests/{trace_id}")
    def request(caller: Annotated[Caller, read], trace_id: str, _: Annotated[NoParameters, Query()]) -> Response:
        """One trace: spans with content, scores, and the state of engine and GPU at each request's times."""
        view = request_view(context.reads, caller.scope, trace_id, context.targets)
        if view is None:
            raise Problem(404, "There is no such trace.")
        return Answer(view)

    return routes
