"""`tidegauge record`: the running service keeps what arrives, for replay, backtests and bug reports."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from catalog.duration import seconds
from service.commands.common import FAILED, ConfigFile, DataDirectory, Json, err, fail, load, out, print_json, tell

ROUTE = "/api/v1/admin/recording"
LOOK_SECONDS = 0.5
MEGABYTE = 1_000_000


def record(
    to: Annotated[Path, typer.Option("--out", help="Directory for the recording; empty or new.")],
    length: Annotated[str, typer.Option("--for", help="How long.")] = "15m",
    max_mb: Annotated[int, typer.Option("--max-mb", help="Megabytes on disk at most.", min=1)] = 1000,
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Record what arrives at the running service, in the form that 'demo --recording' replays.

    Content is redacted as configured.  Ctrl-C ends it early; what was recorded until then is whole.

    Example: tidegauge record --out incident-42 --for 15m
    """
    loaded = load(config, data)
    try:
        wanted = {"out": str(to.absolute()), "seconds": seconds(length), "max_bytes": max_mb * MEGABYTE}
    except ValueError as error:
        fail(f"--for: {error}")
    state = tell(loaded, "POST", ROUTE, wanted)
    try:
        with Live(_line(state), console=err, transient=True) as live:
            while not state["ended"]:
                time.sleep(LOOK_SECONDS)
                state = tell(loaded, "GET", ROUTE)
                live.update(_line(state))
    except KeyboardInterrupt:
        err.print("ending the recording")
    state = tell(loaded, "DELETE", ROUTE)
    if as_json:
        print_json(state)
    else:
        out.print(_summary(state), soft_wrap=True)
    if state["error"]:
        fail(f"recording failed: {state['error']}", FAILED)


def _line(state: dict[str, Any]) -> Text:
    left = max(0.0, state["until"] - time.time())
    return Text(
        f"recording, {left:.0f} s left: {state['exports']} OTLP requests, {state['scrapes']} scrapes, "
        f"{state['gpu_looks']} GPU readings, {state['bytes'] / MEGABYTE:.1f} MB"
    )


def _summary(state: dict[str, Any]) -> str:
    dropped = f"; {state['dropped']} came too fast and are missing" if state["dropped"] else ""
    return (
        f"recorded {state['exports']} OTLP requests, {state['scrapes']} scrapes and {state['gpu_looks']} GPU readings "
        f"to {state['out']} ({state['ended']}){dropped}\nreplay: tidegauge demo --recording {state['out']}"
    )
