"""Drift: the state of every signal and slice, and the evidence for one."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from service.api.answers import Answer
from service.api.parameters import Page, Parameters, Text, once, paged, position
from service.api.problems import Problem
from service.auth import Caller, Gate, Role
from service.context import Context
from store.reads_pages import Pages
from store.scope import Scope

BACK_SECONDS = 7 * 86400.0
HISTORY = 200
RANKS = {"confirmed": 0, "suspected": 1, "resolved": 2}
# What only the monitor itself reads.
INTERNAL = "resume"
SHOWN = "result_id round_time state decision effect_size effect_low effect_high p_value n_current".split()


class DriftFilters(Page):
    """Which series: those with a result since `from` (a week ago, if not said)."""

    signal: Text | None = None
    slice: Text | None = None
    state: Text | None = None
    detector: Text | None = None


class NoParameters(Parameters):
    """None."""


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["drift"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    pages = Pages(context.reads)

    @routes.get("/drift")
    def drift(caller: Annotated[Caller, read], chosen: Annotated[DriftFilters, Query()]) -> Response:
        """The latest result of every signal, slice and detector: confirmed ones first, then suspected."""
        now = context.clock.now()
        place = position(chosen, now, int, str, str, str, default=BACK_SECONDS)
        since, until = place.window
        rows = [
            row
            for row in pages.drift(caller.scope, since=since if since is not None else 0.0)
            if all(getattr(chosen, name) in (None, row[name]) for name in ("signal", "slice", "state", "detector"))
            and (until is None or row["round_time"].timestamp() < until)
        ]
        if place.after is not None:
            rows = [row for row in rows if key(row) > tuple(place.after)]
        shown, cursor = paged(chosen, place, sorted(rows, key=key), key)
        return Answer({"drift": shown, "signals": context.signals(), "next_cursor": cursor})

    @routes.get("/drift/{drift_id}")
    def one(caller: Annotated[Caller, read], drift_id: str, _: Annotated[NoParameters, Query()]) -> Response:
        """One series' latest result with its evidence, and how it got there."""
        found = drift_view(pages, caller.scope, drift_id)
        if found is None:
            raise Problem(404, "There is no such drift series.")
        return Answer(found)

    return routes


def key(row: dict[str, Any]) -> tuple[int, str, str, str]:
    """The order of the list."""
    return RANKS.get(row["state"], 3), row["signal"] or "", row["slice"] or "", row["drift_id"]


def drift_view(pages: Pages, scope: Scope, drift_id: str) -> dict[str, Any] | None:
    """A series' latest result with `evidence`, and `history`, the newest result first; None if there is none."""
    rows = pages.drift_series(scope, drift_id, limit=HISTORY)
    if not rows:
        return None
    # A result's own id asks for that result.
    shown = next((row for row in rows if row["result_id"] == drift_id), rows[0])
    if isinstance(shown["evidence"], dict):
        shown["evidence"].pop(INTERNAL, None)
    history = [{name: row[name] for name in SHOWN} for row in rows]
    return {**shown, "history": history}
