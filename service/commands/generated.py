"""`tidegauge dashboards …` and `tidegauge alerts …`: what is generated from the catalog."""

import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import alerts.build
import alerts.promtool
import dashboards.build
from alerts import backtest
from catalog.clock import SystemClock
from catalog.duration import seconds
from service.commands.common import FAILED, ConfigFile, Json, fail, load, out, print_json, print_table

dashboards_app = typer.Typer(no_args_is_help=True, help="Grafana dashboards, generated from the catalog.")
alerts_app = typer.Typer(no_args_is_help=True, help="Prometheus rules, Alertmanager configuration and their tests.")

# Prometheus keeps a rule's alert over a minute; finer steps find the same pages.
STEP_SECONDS = 60.0

Out = Annotated[Path, typer.Option("--out", help="Directory to write to.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if the directory is out of date.")]


def _report_stale(stale: list[str], command: str) -> None:
    if stale:
        fail("out of date: " + ", ".join(map(str, stale)) + f"; run: tidegauge {command}", FAILED)
    out.print("up to date")


@dashboards_app.command("build")
def dashboards_build(directory: Out, config: ConfigFile = None, check: Check = False) -> None:
    """Write the dashboards as Grafana JSON; twice gives the same bytes.

    Example: tidegauge dashboards build --out grafana/
    """
    console = load(config).url()
    if check:
        stale = [str(item) for item in dashboards.build.check(directory, console=console)]
        _report_stale(stale, f"dashboards build --out {directory}")
        return
    for path in dashboards.build.build(directory, console=console):
        out.print(str(path))


@dashboards_app.command("push")
def dashboards_push(
    url: Annotated[str, typer.Option("--url", help="Grafana's address.")],
    token_file: Annotated[
        Path | None, typer.Option("--token-file", exists=True, help="File with a service account's token.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Send the dashboards to a Grafana.

    Example: tidegauge dashboards push --url http://grafana:3000 --token-file grafana.token
    """
    token = token_file.read_text().strip() if token_file else None
    try:
        pushed = dashboards.build.push(url, token, console=load(config).url())
    except (OSError, RuntimeError) as error:
        fail(str(error), FAILED)
    for item in pushed:
        out.print(str(item))


@alerts_app.command("build")
def alerts_build(directory: Out, config: ConfigFile = None, check: Check = False) -> None:
    """Write rules, their promtool tests and the Prometheus and Alertmanager configuration.

    Example: tidegauge alerts build --out deploy/
    """
    settings = load(config).alert_settings()
    if check:
        _report_stale(alerts.build.check(settings, directory), f"alerts build --out {directory}")
        return
    for path in alerts.build.build(settings, directory):
        out.print(str(path))


@alerts_app.command("test")
def alerts_test(config: ConfigFile = None) -> None:
    """Run promtool and amtool on what would be generated: syntax, and each rule's cases.

    Example: tidegauge alerts test -c tidegauge.yaml
    """
    settings = load(config).alert_settings()
    with tempfile.TemporaryDirectory(prefix="tidegauge-alerts-") as directory:
        alerts.build.build(settings, Path(directory))
        try:
            problems = alerts.promtool.test(Path(directory))
        except alerts.promtool.BinaryMissingError as error:
            fail(str(error), FAILED)
    for problem in problems:
        out.print(problem, markup=False)
    if problems:
        raise typer.Exit(FAILED)
    out.print("rules, tests and configuration pass")


@alerts_app.command("backtest")
def alerts_backtest(
    prometheus: Annotated[str, typer.Option("--prometheus", help="Prometheus that has the series.")],
    since: Annotated[str, typer.Option("--since", help="How far back, for example 30d.")] = "30d",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say when each rule would have fired.

    Example: tidegauge alerts backtest --prometheus http://prometheus:9090 --since 7d
    """
    settings = load(config).alert_settings()
    end = SystemClock().now()
    try:
        start = end - seconds(since)
    except ValueError as error:
        fail(f"--since: {error}")
    try:
        report = backtest.run_against(prometheus, alerts.build.generated_rules(settings), start, end, STEP_SECONDS)
    except (backtest.BacktestUnavailableError, ValueError) as error:
        fail(str(error), FAILED)
    if as_json:
        print_json({"noisy": report.noisy, "alerts": [asdict(span) for span in report.spans]})
    else:
        print_table(
            ["alert", "severity", "labels", "started", "ended"],
            (
                [span.name, span.severity, dict(span.labels), _utc(span.started), _utc(span.ended)]
                for span in report.spans
            ),
            title=f"Would have fired since {since}",
        )
    if report.noisy:
        fail("too noisy to page: " + ", ".join(report.noisy), FAILED)


def _utc(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
