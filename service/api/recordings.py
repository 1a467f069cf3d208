"""The flight recorder's routes.  They write to a directory of this machine, so only who is on it may call them."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Depends
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.answers import Answer
from service.api.problems import Problem
from service.auth import Caller, Gate
from service.recordings import Recordings
from service.replay.recorder import CannotRecord

DAY = 24 * 3600.0
TEBIBYTE = 1 << 40


class Wanted(BaseModel):
    """What to record."""

    model_config = ConfigDict(extra="forbid")

    out: str = Field(description="directory on the service's machine, empty or new")
    seconds: float = Field(default=900.0, gt=0, le=DAY)
    max_bytes: int = Field(default=1 << 30, gt=0, le=TEBIBYTE)


def router(recordings: Recordings, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["admin"])
    local = Depends(gate.local())

    @routes.post("/admin/recording", status_code=201)
    def start(caller: Annotated[Caller, local], wanted: Annotated[Wanted, Body()]) -> Response:
        """Begins to keep what arrives, in the form that `demo --recording` replays."""
        out = Path(wanted.out)
        if not out.is_absolute():
            raise Problem(422, f"out: {wanted.out!r} is not an absolute path.")
        try:
            return Answer(recordings.start(out, wanted.seconds, wanted.max_bytes), status_code=201)
        except CannotRecord as error:
            raise Problem(409, str(error)) from None

    @routes.get("/admin/recording")
    def state(caller: Annotated[Caller, local]) -> Response:
        """How far the recording is."""
        return Answer(_known(recordings.state()))

    @routes.delete("/admin/recording")
    def stop(caller: Annotated[Caller, local]) -> Response:
        """Ends the recording and makes its files whole."""
        return Answer(_known(recordings.stop()))

    return routes


def _known(state: dict[str, object] | None) -> dict[str, object]:
    if state is None:
        raise Problem(404, "Nothing was recorded since the service started.")
    return state
