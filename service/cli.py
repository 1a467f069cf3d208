"""The command `tidegauge`."""

import typer

from service.commands import generated, offline, operations, run
from service.version import VERSION

app = typer.Typer(
    name="tidegauge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Observability and eval monitoring for teams that run LLMs in production.",
)
app.command()(run.serve)
app.command()(run.demo)
app.command()(run.init)
app.command()(operations.check)
app.command()(operations.targets)
app.add_typer(generated.dashboards_app, name="dashboards")
app.add_typer(generated.alerts_app, name="alerts")
app.add_typer(offline.evals_app, name="evals")
app.add_typer(offline.drift_app, name="drift")
app.add_typer(operations.keys_app, name="keys")


@app.command()
def version() -> None:
    """Print the version.

    Example: tidegauge version
    """
    typer.echo(VERSION)


def main() -> None:
    """Entry point."""
    app()
