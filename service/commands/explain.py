"""`tidegauge explain`: why do I not see my data."""

import socket
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from service import locate
from service.commands.common import FAILED, ConfigFile, DataDirectory, Json, ask, load, out, print_json
from service.config import Config, split_address

SIGNS = {"ok": "✓", "note": "·", "problem": "✗"}
CONNECT_SECONDS = 1.0


def explain(
    service: Annotated[str | None, typer.Option("--service", help="Of this service (service.name).")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Of this tenant.")] = None,
    trace: Annotated[str | None, typer.Option("--trace", help="Of this trace id.")] = None,
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Say why data is not to be seen: what arrived, what was refused and why, and what to do.

    Exits 0 if the data is there, else 1.

    Example: tidegauge explain --service shop
    """
    loaded = load(config, data)
    asked = {"service": service, "tenant": tenant, "trace_id": trace}
    answer = look(loaded, **{name: value for name, value in asked.items() if value is not None})
    if as_json:
        print_json(answer)
    else:
        show(answer["findings"])
    if not answer["seen"]:
        raise typer.Exit(FAILED)


def look(loaded: Config, **asked: str) -> Any:
    """What the running service says; where none runs, who has its ports instead."""
    if locate.find(loaded.data) is None:
        return {"seen": False, "findings": list(_without_service(loaded))}
    return ask(loaded, "/api/v1/explain", **asked)


def show(findings: Iterable[Mapping[str, Any]]) -> None:
    """Prints findings as sentences."""
    for finding in findings:
        out.print(f"{SIGNS[finding['level']]} {finding['text']}", markup=False, soft_wrap=True)
        for more in ("fix", "link"):
            if finding.get(more):
                out.print(f"    {more}: {finding[more]}", style="dim", markup=False, soft_wrap=True)


def _without_service(loaded: Config) -> Iterable[Mapping[str, Any]]:
    yield {
        "code": "not_running",
        "level": "problem",
        "text": f"No service has {loaded.data} open, so nothing is taken in",
        "fix": "start one with 'tidegauge serve', or name its directory with --data",
    }
    for name in ("listen", "otlp_http", "otlp_grpc"):
        address = getattr(loaded, name)
        if _answers(address):
            yield {
                "code": "taken",
                "level": "problem",
                "text": f"Another process listens on {address} ({name}): what is sent there goes to it",
                "fix": f"stop it, or set {name} to a free address and point the exporter there",
            }


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(split_address(address), CONNECT_SECONDS):
            return True
    except OSError:
        return False
