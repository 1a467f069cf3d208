"""The console's routes."""

from pathlib import Path

from fastapi import APIRouter
from starlette.staticfiles import StaticFiles

from service.auth import Gate
from service.context import Context

HERE = Path(__file__).parent


def router(context: Context, gate: Gate) -> APIRouter:
    """The pages."""
    return APIRouter(include_in_schema=False)


def static() -> StaticFiles:
    """The style sheet."""
    return StaticFiles(directory=HERE / "static")
