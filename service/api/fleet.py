"""What there is: targets, metric families, evaluators."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from catalog.family import families
from service.api.answers import Answer
from service.api.parameters import Parameters, Text, once
from service.auth import Caller, Gate, Role
from service.context import Context


class NoParameters(Parameters):
    """None."""


class CatalogParameters(Parameters):
    """Which families."""

    origin: Text | None = None
    kind: Text | None = None


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["fleet"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    none = Query()

    @routes.get("/targets")
    def targets(caller: Annotated[Caller, read], _: Annotated[NoParameters, none]) -> Response:
        """What is scraped and how it is, where it was found and what was left out, and the GPUs that report."""
        return Answer({"targets": context.targets(), "discovery": context.discovery(), "gpus": context.gpus()})

    @routes.get("/catalog")
    def catalog(caller: Annotated[Caller, read], chosen: Annotated[CatalogParameters, Query()]) -> Response:
        """Every metric family that `/metrics` can serve."""
        found = [
            asdict(family)
            for family in families().values()
            if chosen.origin in (None, str(family.origin)) and chosen.kind in (None, str(family.kind))
        ]
        return Answer({"families": found})

    @routes.get("/evaluators")
    def evaluators(caller: Annotated[Caller, read], _: Annotated[NoParameters, none]) -> Response:
        """What scores requests."""
        return Answer({"evaluators": context.evaluators()})

    return routes
