"""`tidegauge serve`, `tidegauge demo`, `tidegauge init`."""

import asyncio
import signal
import socket
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from opentelemetry.sdk.trace import TracerProvider

from service import logs, telemetry
from service.commands.common import FAILED, OK, ConfigFile, DataDirectory, Json, err, fail, load, out, print_json
from service.config import Config
from service.demo import Demo, shipped_recording
from service.demo_view import LiveView, print_summary
from service.listeners import AddressTaken
from service.replay.recording import Recording, RecordingError
from service.runtime import NotSafeToListen, Service
from store.database import StoreUnreadable

# Fast enough that a newcomer sees drift and an alert within a minute, slow enough to watch.
LIVE_SPEED, ONCE_SPEED = 20.0, 30.0
ALERTS_EVERY_SECONDS = 8.0
SWITCH_SECONDS = 0.001


def serve(config: ConfigFile = None, data: DataDirectory = None) -> None:
    """Run the service: collectors, receivers, eval runner, drift, API and console.

    Example: tidegauge serve -c tidegauge.yaml --data /var/lib/tidegauge
    """
    loaded = load(config, data)
    # The event loop and the writer wait less for the thread that decodes: a tenth more spans a second.
    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure(loaded.telemetry.log_level)
    provider = telemetry.start(loaded.telemetry.otlp_endpoint)
    try:
        asyncio.run(_serve(loaded, provider))
    except (AddressTaken, NotSafeToListen, StoreUnreadable) as error:
        fail(f"tidegauge: {error}")
    finally:
        if provider is not None:
            provider.shutdown()


async def _serve(config: Config, provider: TracerProvider | None = None) -> None:
    service = Service(config)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await service.listen()
        service.start_loops()
        err.print(f"Tidegauge serves {config.url()}  (OTLP on {config.otlp_grpc} and {config.otlp_http})")
        await stop.wait()
    finally:
        if provider is not None:
            # Own traces may go to this very process: they leave while it still listens.
            await asyncio.to_thread(provider.shutdown)
        await service.stop()


def demo(
    once: Annotated[bool, typer.Option("--once", help="Run to the end, print the summary and exit.")] = False,
    speed: Annotated[float | None, typer.Option("--speed", min=0.1, help="Times real time.")] = None,
    recording: Annotated[Path | None, typer.Option("--recording", help="Directory of a recording.")] = None,
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Run the service on recorded real telemetry, its times moved to now.

    Example: tidegauge demo --once --json
    """
    loaded = load(config)
    logs.configure("error")
    try:
        opened = Recording(recording or shipped_recording())
    except RecordingError as error:
        fail(f"tidegauge: {error}")
    with tempfile.TemporaryDirectory(prefix="tidegauge-demo-") as scratch:
        settings = loaded.model_copy(update={"data": data or Path(scratch), "listen": _free(loaded.listen)})
        demonstration = Demo.prepare(settings, opened, speed or (ONCE_SPEED if once else LIVE_SPEED))
        try:
            asyncio.run(_demo(demonstration, once, quiet=as_json))
        except KeyboardInterrupt:
            raise typer.Exit(OK) from None
        except RecordingError as error:
            fail(f"tidegauge: {error}", FAILED)


async def _demo(demo: Demo, once: bool, quiet: bool) -> None:
    view = LiveView(demo, quiet=quiet)
    refresh = asyncio.create_task(_refresh_alerts(demo)) if not once else None
    try:
        await demo.service.listen_console()
        with view:
            await demo.run()
            if not once:
                await asyncio.Event().wait()
        summary = demo.summary()
    finally:
        if refresh is not None:
            refresh.cancel()
        await demo.service.stop()
    if quiet:
        print_json(summary)
    else:
        print_summary(out, summary)


async def _refresh_alerts(demo: Demo) -> None:
    """While people watch, what would have paged so far."""
    while not demo.replay.progress.done:
        await asyncio.sleep(ALERTS_EVERY_SECONDS)
        if not demo.replay.progress.done:
            await demo.evaluate_alerts()


def _free(address: str) -> str:
    """The address, or one with a free port where it is taken: a demo should not fail for that."""
    host, _, port = address.rpartition(":")
    for candidate in (int(port), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return f"{host}:{probe.getsockname()[1]}"
    return address


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("tidegauge.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it exists.")] = False,
) -> None:
    """Write a commented configuration file with the defaults.

    Example: tidegauge init tidegauge.yaml
    """
    if path.exists() and not force:
        fail(f"{path} exists; --force overwrites it")
    path.write_text(files("service").joinpath("tidegauge.yaml").read_text())
    out.print(f"wrote {path}; check it with: tidegauge check -c {path}")
