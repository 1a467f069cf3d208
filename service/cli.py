"""The command `tidegauge`."""

import logging
import os
import sys

import typer

from service.commands import explain, generated, offline, operations, record, run, store
from service.commands.common import USAGE, err
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
app.command()(record.record)
app.command()(operations.check)
app.command()(operations.targets)
app.command()(explain.explain)
app.command()(store.export)
app.command()(store.erase)
app.command()(store.backup)
app.command()(store.restore)
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


def _run() -> None:
    """Runs the command.  A file or directory that cannot be used is the user's to mend, and no traceback."""
    try:
        app()
    except OSError as error:
        if error.filename is None:
            raise
        err.print(f"tidegauge: {error.filename}: {error.strerror}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(USAGE) from None


def main() -> None:
    """Entry point."""
    try:
        _run()
    except SystemExit as end:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Everything of ours is closed by now.  Taking the interpreter down piece by piece would only make DuckDB's
        # bindings print a page about types of their own that they did not free.
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
