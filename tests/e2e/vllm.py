"""A real vLLM with a real model under real load, through everything Tidegauge does: `make e2e-vllm`.

Engine and applications send their traces over OTLP; the same engine is scraped, and asked as the judge; a real
Prometheus and Alertmanager fire on its queue.  A prompt version that declines is found as drift, an overload becomes
an incident and ends.  Exit 1 if one of the checks at the end fails.  docs/e2e-vllm.md says more.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from alerts.build import build
from alerts.promtool import BinaryMissingError, binary
from alerts.settings import AlertSettings
from tests.binaries import alertmanager, prometheus
from tests.e2e.service_kit import RunningService, free_ports
from tests.e2e.vllm_checks import Result, Run, idle_spans, own_traces, results
from tests.e2e.vllm_engine import MODEL, Engine, EngineFailed, engine
from tests.e2e.vllm_load import Stage, Traffic
from tests.e2e.vllm_setup import Installation, SetupFailed, install
from tests.e2e.vllm_watch import Watch

STAGES = (
    Stage("quiet", 150, rate=2.0),
    Stage("new prompt", 150, rate=2.0, prompt="2"),
    Stage("overload", 75, clients=250),
    # Ends as soon as nothing is open and the incident is over.
    Stage("calm", 420, rate=1.0),
)
CALM_SECONDS, JUDGE_SECONDS, IDLE_SECONDS = 45.0, 240.0, 30.0
# A minute becomes 30 s: every window and `for:` of the rules.
TIME_SCALE = 0.5


def main(
    cache: Annotated[Path, typer.Option(help="Where vLLM and the model are kept, 3.5 GB.")] = Path(".vllm"),
) -> None:
    """Run a real vLLM on the CPU through to scores, drift and a fired alert."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    try:
        for program in ("prometheus", "prometheus-alertmanager"):
            binary(program)  # they are needed only minutes from now
        found = run(install(cache, console), console)
    except (BinaryMissingError, SetupFailed, EngineFailed, AssertionError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted; everything was stopped")
        raise typer.Exit(130) from None
    failed = [each for each in found if not each.passed]
    minutes = (time.monotonic() - began) / 60
    console.print(f"{len(found) - len(failed)} of {len(found)} checks passed, {minutes:.1f} minutes")
    raise typer.Exit(1 if failed else 0)


def run(place: Installation, console: Console) -> list[Result]:
    """The whole run, in a folder that stays for looking at until the next; everything it started is ended."""
    directory = place.root / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    port, grpc, mail = free_ports(3)
    service = RunningService(directory, **_configuration(f"127.0.0.1:{port}", f"127.0.0.1:{grpc}"))
    with ExitStack() as stack:
        status = stack.enter_context(console.status("starting"))
        # Before the engine, which traces its own start.
        stack.enter_context(service)
        serving = stack.enter_context(engine(place, port, service.otlp_url, directory / "vllm.log", status.update))
        console.print(f"vLLM serves {MODEL} after {serving.started_in:.0f} s")
        url = stack.enter_context(_alerting(service, directory, mail))
        traffic = Traffic(serving.url, service.otlp_url, STAGES)
        stack.callback(traffic.end)
        watch = Watch(service, url)
        _watch(traffic, watch, console, status)
        _settle(watch, console, status)
        status.update("idle")
        idle = idle_spans(service, IDLE_SECONDS), idle_spans(service, IDLE_SECONDS)
        status.update("checks")
        found = results(Run(service, traffic, watch, idle))
        status.stop()
        _print_timeline(serving, traffic, watch, console)
        service.stop()
        found.append(own_traces(service))
        _print_results(found, console)
    return found


def _configuration(engine_address: str, grpc: str) -> dict[str, Any]:
    """What a user would write, with times of minutes where production has hours."""
    return {
        "otlp_grpc": grpc,
        "telemetry": {"otlp_endpoint": f"http://{grpc}"},
        "scrape": {
            "interval": "2s",
            "targets": [{"url": f"http://{engine_address}/metrics", "labels": {"instance": engine_address}}],
        },
        "evals": {
            "policies": [
                {"where": {"operation": "chat"}, "evaluators": ["json_validity", "refusal", "length", "repetition"]},
                {"where": {"service": "support-bot"}, "rate": 0.06, "evaluators": ["judge"]},
            ],
            "judge": {
                "url": f"http://{engine_address}/v1",
                "model": MODEL,
                "concurrency": 2,
                "attempts": 2,
                "max_answer_tokens": 160,
                "structured_output": True,
            },
            "settle_seconds": 2,
        },
        "drift": {"round": "15s", "window": "1m", "reference": "5m", "lag": "15s"},
    }


@contextmanager
def _alerting(service: RunningService, directory: Path, port: int) -> Iterator[str]:
    """Alertmanager and Prometheus with the generated rules; Prometheus' URL."""
    settings = AlertSettings(
        time_scale=TIME_SCALE,
        public_url=service.url,
        webhook_url=f"{service.url}/api/v1/alerts/webhook",
        alertmanager=f"127.0.0.1:{port}",
        scrape_target=service.url.removeprefix("http://"),
        scrape_interval="5s",
        evaluation_interval="5s",
    )
    build(settings, directory)
    with (
        alertmanager(directory / "alertmanager/alertmanager.yml", directory, port),
        prometheus(directory / "prometheus/prometheus.yml", directory) as url,
    ):
        yield url


def _watch(traffic: Traffic, watch: Watch, console: Console, status: Status) -> None:
    """Looks on while the traffic goes through its stages; ends it once the incident is over, and a while after."""
    traffic.start()
    began, shown = time.time(), set[str]()
    while traffic.is_alive():
        stages = [name for name in list(traffic.began) if name not in shown]
        for name in [*stages, *watch.look()]:
            shown.add(name)
            console.print(f"{time.time() - began:4.0f} s  {name}")
        status.update(
            f"{time.time() - began:.0f} s: {traffic.asked.total()} asked, {traffic.open} open, "
            f"{watch.waiting():.0f} wait for the engine"
        )
        if watch.over and time.time() - traffic.began.get("calm", time.time()) > CALM_SECONDS:
            traffic.end()
        time.sleep(1.0)


def _settle(watch: Watch, console: Console, status: Status) -> None:
    """Waits for the judge, who has the engine to itself now."""
    began = time.monotonic()
    while (left := watch.value("tidegauge_judge_backlog")) > 0 and time.monotonic() - began < JUDGE_SECONDS:
        status.update(f"{left:.0f} requests wait for the judge")
        for name in watch.look():
            console.print(f"        {name}")
        time.sleep(2.0)


def _print_results(found: list[Result], console: Console) -> None:
    table = Table("", "check", "found", title="What came of it", title_justify="left", header_style="bold")
    for each in found:
        mark = "[green]✓[/green]" if each.passed else "[red]✗[/red]"
        table.add_row(mark, each.name, Text(each.found))
    console.print(table)


def _print_timeline(serving: Engine, traffic: Traffic, watch: Watch, console: Console) -> None:
    """Stages and what was seen, by when; seconds from the first request."""
    start = traffic.began[STAGES[0].name]
    rows = sorted({**traffic.began, **watch.first}.items(), key=lambda row: row[1])
    table = Table("s", "what", title="What happened when", title_justify="left", header_style="bold")
    table.add_row(f"{-serving.started_in:.0f}", "engine starting")
    for name, when in rows:
        table.add_row(f"{when - start:.0f}", f"stage: {name}" if name in traffic.began else name)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
