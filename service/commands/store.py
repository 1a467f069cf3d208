"""`tidegauge export`, `erase`, `backup` and `restore`: a data directory's rows and files."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from catalog.clock import SystemClock
from service import export_files, locate
from service.api.times import BadTime, instant
from service.commands.common import (
    FAILED,
    ConfigFile,
    DataDirectory,
    Json,
    detail,
    fail,
    load,
    out,
    print_json,
    tell,
)
from service.config import Config
from store import backup as backups
from store.database import Database, StoreUnreadable
from store.scope import EVERYTHING, Selection
from store.snapshots import UnknownExport
from store.snapshots import export as export_rows

BACKUP_SECONDS = 3600.0
ERASE_SECONDS = 600.0
READ_SECONDS = 60.0
MEGABYTE = 1_000_000


class Format(StrEnum):
    """Of an exported file."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    ARROW = "arrow"


def export(
    table: Annotated[str, typer.Argument(help="spans, requests, scores, log_records, engine_state, gpu_state, …")],
    to: Annotated[Path, typer.Option("--out", help="File to write; replaced if it is there.")],
    form: Annotated[Format, typer.Option("--format", help="Of the file.")] = Format.PARQUET,
    since: Annotated[str | None, typer.Option("--since", help="From then on: 7d ago, or RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before then: 1h ago, or RFC 3339.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Rows of one tenant.")] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Separated by commas; all unless given.")] = None,
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Write a table's rows to a file, through the running service if there is one.

    Example: tidegauge export spans --since 7d --format parquet --out spans.parquet
    """
    loaded = load(config, data)
    now = SystemClock().now()
    start, end = _instant("--since", since, now), _instant("--until", until, now)
    chosen = [name.strip() for name in columns.split(",")] if columns else None
    with _batches(loaded, table, Selection({"tenant": tenant} if tenant else {}, start, end), chosen) as rows:
        count = export_files.write(rows, rows.schema, to, form)
    if as_json:
        print_json({"table": table, "rows": count, "out": str(to), "bytes": to.stat().st_size})
    else:
        out.print(f"{count} rows of {table} in {to}, {to.stat().st_size / MEGABYTE:.1f} MB", soft_wrap=True)


def _instant(option: str, text: str | None, now: float) -> float | None:
    if text is None:
        return None
    with suppress(BadTime):
        return instant(f"-{text}", now)  # 7d is seven days ago
    try:
        return instant(text, now)
    except BadTime as error:
        fail(f"{option}: {error}")


@contextmanager
def _batches(
    loaded: Config, table: str, selection: Selection, columns: list[str] | None
) -> Iterator[pa.RecordBatchReader]:
    running = locate.find(loaded.data)
    if running is None:
        with _opened(loaded.data) as database:
            try:
                rows = export_rows(database, EVERYTHING, table, selection, columns)
            except UnknownExport as error:
                fail(str(error))
            try:
                yield pa.RecordBatchReader.from_batches(rows.schema, rows.batches)
            finally:
                rows.close()
        return
    query = {"from": selection.start, "to": selection.end, "columns": ",".join(columns or ()), **selection.filters}
    given = urllib.parse.urlencode({name: value for name, value in query.items() if value not in (None, "")})
    url = f"{running.url}/api/v1/export/{urllib.parse.quote(table, safe='')}?{given}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {running.token}"})
    try:
        with urllib.request.urlopen(request, timeout=READ_SECONDS) as answer:
            yield pa.ipc.open_stream(answer)
    except urllib.error.HTTPError as error:
        fail(f"{url}: {error.code} {detail(error.read())}", FAILED)
    except (urllib.error.URLError, TimeoutError) as error:
        fail(f"{url}: {error}", FAILED)


@contextmanager
def _opened(directory: Path) -> Iterator[Database]:
    """The store of a directory that no service has open."""
    if not (directory / "tidegauge.duckdb").exists():
        fail(f"{directory} holds no tidegauge.duckdb; name the data directory with --data")
    try:
        database = Database(directory)
    except StoreUnreadable as error:
        fail(str(error))
    try:
        yield database
    finally:
        database.close()


def erase(
    user: Annotated[str, typer.Option("--user", help="The id as applications send it.")],
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Remove a user from every table of the running service: their traces, scores and log records.

    Backups, recordings and exported files keep what they hold.

    Example: tidegauge erase --user 4711
    """
    erased = tell(load(config, data), "POST", "/api/v1/admin/erase", {"user": user}, timeout=ERASE_SECONDS)
    if as_json:
        print_json(erased)
        return
    counts = [f"{count} rows of {table} removed" for table, count in erased["removed"].items()]
    counts += [f"{count} rows of {table} changed" for table, count in erased["changed"].items()]
    out.print("\n".join(counts))


def backup(
    to: Annotated[Path, typer.Option("--out", help="Directory for the backup; empty or new.")],
    config: ConfigFile = None,
    data: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Make a backup of the data directory, while the service runs or not.

    It holds the database at one commit, the key that makes user ids unreadable, and the hashes of the API keys.

    Example: tidegauge backup --out /backup/tidegauge-2026-01-31
    """
    loaded = load(config, data)
    try:
        if locate.find(loaded.data) is not None:
            wanted = {"out": str(to.absolute())}
            made_at = tell(loaded, "POST", "/api/v1/admin/backup", wanted, timeout=BACKUP_SECONDS)["made_at"]
        else:
            made_at = SystemClock().now()
            with _opened(loaded.data) as database:
                backups.copy(database, to)
        manifest = backups.seal(to, made_at)
    except backups.CannotBackUp as error:
        fail(f"tidegauge: {error}", FAILED)
    _show(manifest, f"backup in {to}", as_json)


def restore(
    source: Annotated[Path, typer.Argument(help="Directory that 'tidegauge backup' made.")],
    data: Annotated[Path, typer.Option("--data", help="Data directory to make; nothing in it is overwritten.")],
    as_json: Json = False,
) -> None:
    """Make a data directory from a backup, after a look at its checksums.

    Example: tidegauge restore /backup/tidegauge-2026-01-31 --data /var/lib/tidegauge
    """
    try:
        manifest = backups.restore(source, data)
    except (backups.CannotRestore, StoreUnreadable) as error:
        fail(f"tidegauge: {error}")
    _show(manifest, f"restored to {data}", as_json)


def _show(manifest: backups.Manifest, done: str, as_json: bool) -> None:
    size = sum(file.bytes for file in manifest.files.values())
    if as_json:
        print_json({"made_at": manifest.made_at, "rows": manifest.rows, "bytes": size})
        return
    counts = ", ".join(f"{manifest.rows.get(table, 0)} {table}" for table in ("spans", "scores", "log_records"))
    out.print(f"{done}: {counts}, {size / MEGABYTE:.1f} MB", soft_wrap=True)
