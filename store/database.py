"""Opens the data directory's DuckDB file and brings its schema up to date."""

import contextlib
import re
from importlib.resources import files
from pathlib import Path

import duckdb

from store.settings import StoreSettings

FILE = "tidegauge.duckdb"


class StoreLocked(Exception):
    """Another process has the data directory open."""


class StoreTooNew(Exception):
    """The data directory was written by a newer version."""


class StoreCorrupt(Exception):
    """The database file cannot be read."""


def migrations() -> list[tuple[int, str]]:
    """Number and SQL of every migration, in order."""
    found = []
    for path in files("store").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", path.name)
        if match:
            found.append((int(match[1]), path.read_text()))
    return sorted(found)


class Database:
    """The open database.  `cursor()` gives an independent connection to it, one a thread."""

    def __init__(self, directory: Path, settings: StoreSettings | None = None) -> None:
        """Opens or creates `directory`; raises StoreLocked, StoreTooNew or StoreCorrupt."""
        self.directory = directory
        self.path = directory / FILE
        directory.mkdir(parents=True, exist_ok=True)
        settings = settings or StoreSettings()
        self._connection = self._connect(settings)
        try:
            self.migrated_from = self._migrate()
        except BaseException:
            self._connection.close()
            raise

    def _connect(self, settings: StoreSettings) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": settings.memory_limit,
            "threads": settings.threads,
            "checkpoint_threshold": settings.checkpoint_threshold,
            "temp_directory": str(self.directory / "tmp"),
            # Nothing that a query says may reach files or the network.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            return duckdb.connect(str(self.path), config=config)
        except duckdb.IOException as error:
            if "lock" in str(error).lower():
                raise StoreLocked(f"{self.path} is open in another process; stop it, or give another --data") from error
            raise StoreCorrupt(f"{self.path} cannot be opened: {error}") from error
        except (duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException) as error:
            raise StoreCorrupt(f"{self.path} cannot be read: {error}") from error

    def _migrate(self) -> int:
        known = migrations()
        connection = self._connection
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, applied_at TIMESTAMPTZ)")
        row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        version = int(row[0]) if row else 0
        newest = known[-1][0]
        if version > newest:
            raise StoreTooNew(
                f"{self.path} has schema {version}, this version knows up to {newest}; install a newer tidegauge"
            )
        for number, sql in known:
            if number > version:
                connection.begin()
                try:
                    connection.execute(sql)
                    connection.execute("INSERT INTO schema_version VALUES (?, now())", [number])
                    connection.commit()
                except BaseException:
                    with contextlib.suppress(duckdb.Error):
                        connection.rollback()
                    raise
        return version

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same database."""
        return self._connection.cursor()

    def bytes(self) -> int:
        """Size of the database and its write-ahead log on disk."""
        return sum(p.stat().st_size for p in (self.path, self.path.with_name(FILE + ".wal")) if p.exists())

    def close(self) -> None:
        """Checkpoints and closes; may be called twice.

        A reader that is still at work keeps the file open until it is done; what is committed is safe either way.
        """
        with contextlib.suppress(duckdb.Error):
            self._connection.close()
