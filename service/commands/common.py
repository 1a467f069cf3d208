"""What the commands share: options, configuration, output and the way to the running service."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from service import config, locate

OK, FAILED, USAGE = 0, 1, 2

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", help="Configuration file; default: tidegauge.yaml here, if any.")
]
DataDirectory = Annotated[Path | None, typer.Option("--data", help="Data directory; overrides the configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Ends the command with a message and no traceback."""
    err.print(message, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def load(path: Path | None, data: Path | None = None) -> config.Config:
    """The configuration, or an exit with all that is wrong with it."""
    if path is None and Path("tidegauge.yaml").exists():
        path = Path("tidegauge.yaml")
    try:
        loaded = config.load(path)
    except config.ConfigError as error:
        fail(str(error))
    return loaded if data is None else loaded.model_copy(update={"data": data})


def print_json(value: Any) -> None:
    """Prints `value` as JSON, times in ISO form."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Prints rows under headings; nothing said is shown as a dash."""
    table = Table(*columns, title=title, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*("–" if cell is None or cell == "" else str(cell) for cell in row))
    out.print(table)


def ask(loaded: config.Config, path: str, **query: str) -> Any:
    """What the running service answers to a GET; an exit with the reason if none runs or it refuses."""
    return tell(loaded, "GET", path, query=query)


def tell(
    loaded: config.Config,
    method: str,
    path: str,
    body: Any = None,
    query: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> Any:
    """Like `ask`, for any method, with a JSON body if there is one."""
    running = locate.find(loaded.data)
    if running is None:
        fail(f"no service has {loaded.data} open; start one with 'tidegauge serve'", FAILED)
    url = f"{running.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        fail(f"{url}: {error.code} {detail(error.read())}", FAILED)
    except (urllib.error.URLError, TimeoutError) as error:
        fail(f"{url}: {error}", FAILED)


def detail(body: bytes) -> str:
    """What a problem document says."""
    try:
        problem: Mapping[str, Any] = json.loads(body)
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return ""
