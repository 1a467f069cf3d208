"""Incidents: Alertmanager's webhook in, and what became of each alert."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from service.api.answers import Answer
from service.api.parameters import Page, Parameters, Text, once, paged, position
from service.api.problems import Problem
from service.auth import Caller, Gate, Role
from service.context import Context
from service.incidents import Incidents, Notification
from store.reads_pages import Pages


class IncidentFilters(Page):
    """Which incidents, by when they began."""

    status: Literal["firing", "resolved"] | None = None
    alertname: Text | None = None
    severity: Text | None = None


class NoParameters(Parameters):
    """None."""


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["incidents"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    ingest = Depends(gate.unbound(Role.INGEST))
    pages = Pages(context.reads)
    kept = Incidents(context)

    @routes.post("/alerts/webhook")
    def webhook(caller: Annotated[Caller, ingest], notification: Notification) -> Response:
        """Takes what Alertmanager posts; an alert's firing and resolution are one incident."""
        return Answer({"incidents": kept.take(notification.alerts)})

    @routes.get("/incidents")
    def incidents(caller: Annotated[Caller, read], chosen: Annotated[IncidentFilters, Query()]) -> Response:
        """Incidents without their context, the newest first, a page at a time."""
        place = position(chosen, context.clock.now(), int, str)
        start, end = place.window
        rows = pages.incidents(
            caller.scope,
            status=chosen.status,
            alertname=chosen.alertname,
            severity=chosen.severity,
            start=start,
            end=end,
            limit=chosen.limit + 1,
            after=place.after,
        )
        shown, cursor = paged(chosen, place, rows, lambda row: (row["page_key"], row["incident_id"]))
        for row in shown:
            del row["page_key"]
        return Answer({"incidents": shown, "next_cursor": cursor})

    @routes.get("/incidents/{incident_id}")
    def incident(caller: Annotated[Caller, read], incident_id: str, _: Annotated[NoParameters, Query()]) -> Response:
        """One incident with the snapshot taken when it was first heard of."""
        found = pages.incident(caller.scope, incident_id)
        if found is None:
            raise Problem(404, "There is no such incident.")
        return Answer(found)

    return routes
