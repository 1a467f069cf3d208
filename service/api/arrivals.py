"""What arrived lately, and why data is not to be seen."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import Field

from service.api.answers import Answer
from service.api.parameters import Parameters, Text, once
from service.arrivals import visible
from service.auth import Caller, Gate, Role
from service.context import Context
from service.explain import Asked, Evidence, Stored, explain, seen
from store.scope import moment

BACK_SECONDS = 86_400.0


class ArrivalFilters(Parameters):
    """Which arrivals."""

    service: Text | None = None
    tenant: Text | None = None


class Question(ArrivalFilters):
    """Whose data is missed."""

    trace_id: Text | None = Field(None, description="A trace, in hex")


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["arrivals"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))

    @routes.get("/arrivals")
    def arrivals(caller: Annotated[Caller, read], chosen: Annotated[ArrivalFilters, Query()]) -> Response:
        """Requests and items of OTLP of the last hour, by sender, service and fate; a restart forgets them."""
        recent = context.ledger.recent()
        requests, items = visible(recent, caller, context.clock.now())
        whole = caller.scope.tenants is None
        return Answer(
            {
                "requests": [] if chosen.service or chosen.tenant else requests,
                "items": [row for row in items if _is_of(row, chosen)],
                "waiting": recent.waiting if whole else {},
                "listeners": context.listeners() if whole else [],
                "forgotten": recent.forgotten if whole else 0,
            }
        )

    @routes.get("/explain")
    def answer(caller: Annotated[Caller, read], chosen: Annotated[Question, Query()]) -> Response:
        """Why data is not to be seen: findings with what to do, the worst first."""
        findings = explain(_evidence(context, gate, caller, chosen))
        shown = [{name: value for name, value in asdict(finding).items() if value != ""} for finding in findings]
        return Answer({"seen": seen(findings), "findings": shown})

    return routes


def _is_of(row: Mapping[str, Any], chosen: ArrivalFilters) -> bool:
    return chosen.service in (None, row["service"]) and chosen.tenant in (None, row["tenant"])


def _evidence(context: Context, gate: Gate, caller: Caller, chosen: Question) -> Evidence:
    recent, whole = context.ledger.recent(), caller.scope.tenants is None
    requests, items = visible(recent, caller, context.clock.now())
    trace = chosen.trace_id and chosen.trace_id.lower()
    listeners = context.listeners() if whole else []
    return Evidence(
        asked=Asked(chosen.service, chosen.tenant, trace),
        requests=requests,
        items=items,
        stored=_stored(context, caller, chosen, trace),
        listeners=listeners,
        waiting=recent.waiting if whole else {},
        keys=gate.shown_keys() if caller.role is Role.ADMIN and whole else (),
        endpoint=next((f"http://{row['address']}" for row in listeners if row["name"] == "otlp_http" and row["up"]),
                      context.public_url),
        public_url=context.public_url,
        withheld=context.withheld(chosen.tenant),
        redactions=_redactions(context) if whole else 0,
    )  # fmt: skip


def _stored(context: Context, caller: Caller, chosen: Question, trace: str | None) -> Stored:
    # A trace is found whenever it was; of all others only what came lately is looked for.
    since = 0.0 if trace else context.clock.now() - BACK_SECONDS
    tenants = None if caller.scope.tenants is None else sorted(caller.scope.tenants)
    row = context.reads.query(
        "arrived", service=chosen.service, tenant=chosen.tenant, trace=trace, tenants=tenants, since=moment(since)
    )[0]
    latest = f"{row['latest']:%Y-%m-%d %H:%M:%S} UTC" if row["latest"] else ""
    return Stored(row["spans"], row["requests"], row["without_tenant"], latest, row["latest_trace"] or "")


def _redactions(context: Context) -> int:
    counted = context.metrics.counters.tidegauge_redactions_total.collect()
    return int(sum(s.value for family in counted for s in family.samples if s.name.endswith("_total")))
