"""Opens the data directory's DuckDB file and brings its schema up to date."""

import contextlib
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import duckdb

from store.health import StoreHealth, said_by_system
from store.settings import StoreSettings

LOG = logging.getLogger(__name__)
FILE = "tidegauge.duckdb"
WAL = FILE + ".wal"
# How a write-ahead log starts: its type and version, the database's id and the checkpoint that it follows.  DuckDB
# takes one that starts otherwise for one of a write that was never finished, and drops it without a word.
WAL_HEADER = re.compile(rb"\x64\x00\x62\x65\x00(\x01|[\x02\x03]\x66\x00\x10.{16,32}\x67\x00.{1,10})\xff\xff", re.DOTALL)
WAL_HEADER_BYTES = 64
NEVER = "1000 TB"
# The writer folds the log between its commits.  So many times larger it may grow under others, until DuckDB itself
# folds it within a commit.
BACKSTOP = 8
# A reader at work is interrupted before the database is opened anew; it needs a moment to notice.
RELEASE_SECONDS = 10.0


class StoreUnreadable(Exception):
    """What was asked for cannot be read: its blocks are damaged, or the database cannot be opened."""


class StoreLocked(StoreUnreadable):
    """Another process has the data directory open."""


class StoreTooNew(StoreUnreadable):
    """The data directory was written by a newer version."""


class StoreCorrupt(StoreUnreadable):
    """The database file or its write-ahead log is damaged; neither was changed."""


class StoreUnusable(StoreUnreadable):
    """The disk does not let the database be opened: it is full, read-only or failing, or the files are not ours."""


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
        """Opens or creates `directory`; raises StoreLocked, StoreTooNew, StoreCorrupt or StoreUnusable."""
        self.directory = directory
        self.path = directory / FILE
        self._settings = settings or StoreSettings()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"{directory}: {error.strerror}") from error
        self.health = StoreHealth(directory, self._settings)
        self.generation = 0
        self._lock = threading.RLock()
        self._holds = 0
        self._cursors: list[weakref.ref[duckdb.DuckDBPyConnection]] = []
        self._connection = self._connect()
        try:
            with explained(self.path):
                self.migrated_from = self._migrate()
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> duckdb.DuckDBPyConnection:
        settings = self._settings
        self._folds_at = self.health.fold_at()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": settings.memory_limit,
            "threads": settings.threads or max(len(os.sched_getaffinity(0)) // 2, 1),
            "checkpoint_threshold": _bytes(self._folds_at * BACKSTOP),
            # Commits wait while a checkpoint rewrites row groups; see retention.py for what is done instead.
            "max_vacuum_tasks": 0,
            "temp_directory": str(self.directory / "tmp"),
            # Nothing that a query says may reach files or the network.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        _check_log(self.path.with_name(WAL))
        with explained(self.path):
            return duckdb.connect(str(self.path), config=config)

    def revive(self, generation: int) -> None:
        """Opens the database anew after an error that took it down, unless somebody did since `generation`.

        Every connection is closed, also those of readers at work, whose queries end with an error.  Raises as the
        constructor does; then nothing is open, and the next call tries again.
        """
        with self._lock:
            if self.generation != generation:
                return
            LOG.error("store_reopens")
            self._release()
            self._connection = self._connect()
            self._cursors = []
            self.generation += 1
            LOG.warning("store_reopened")

    def settled(self) -> int:
        """The generation, once nobody opens the database anew any more."""
        with self._lock:
            return self.generation

    def _release(self) -> None:
        """Closes all connections: while one is open, DuckDB hands out the same dead database."""
        until = time.monotonic() + RELEASE_SECONDS
        for connection in [*filter(None, (reference() for reference in self._cursors)), self._connection]:
            while True:
                with contextlib.suppress(duckdb.Error):
                    connection.interrupt()
                try:
                    connection.close()
                except duckdb.ResourceInUseException:
                    if time.monotonic() > until:
                        raise StoreUnusable(f"{self.path}: a query does not end, so it cannot be opened anew") from None
                    time.sleep(0.01)
                except duckdb.Error:
                    break
                else:
                    break

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
        with self._lock:
            cursor = self._connection.cursor()
            self._cursors = [reference for reference in self._cursors if reference() is not None]
            self._cursors.append(weakref.ref(cursor))
            return cursor

    def fold_at(self) -> int:
        """Bytes of the write-ahead log at which to fold it into the file; 0 is not now.

        Whoever starts a checkpoint asks first: it may find no room, or run into a backup.
        """
        return 0 if self._holds else self.health.fold_at()

    def fold(self) -> float | None:
        """Folds the write-ahead log into the file where it is due; gives the seconds that took, None where it is not.

        For the writer, between its commits: DuckDB lets nobody commit meanwhile, so little is folded at a time.  What
        is appended after it starts a new row group, so nothing is written twice.  Raises duckdb.Error.
        """
        due = self.fold_at()
        if not due or self.health.wal_bytes() < due:
            return None
        began = time.perf_counter()
        try:
            self.cursor().execute("CHECKPOINT")
        except duckdb.TransactionException:
            # Somebody else writes just now; it is tried again after the next commit.
            return None
        return time.perf_counter() - began

    def fold_by_room(self) -> None:
        """Has DuckDB fold its write-ahead log earlier where the disk has little room, and not at all without any.

        For the writer, before a commit; raises duckdb.Error.
        """
        wanted = self.fold_at()
        if abs(wanted - self._folds_at) > self._folds_at // 4:
            self._connection.cursor().execute(f"SET GLOBAL checkpoint_threshold = '{_bytes(wanted * BACKSTOP)}'")
            self._folds_at = wanted

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody checkpoints within the block, so that the file holds still; it may be cut short by a `revive`."""
        with self._lock:
            self._holds += 1
            self.fold_by_room()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(duckdb.Error):
                self._holds -= 1
                self.fold_by_room()

    def bytes(self) -> int:
        """Size of the database and its write-ahead log on disk."""
        return sum(p.stat().st_size for p in (self.path, self.path.with_name(WAL)) if p.exists())

    def close(self) -> None:
        """Checkpoints and closes; may be called twice.

        A reader that is still at work keeps the file open until it is done; what is committed is safe either way.
        """
        with contextlib.suppress(duckdb.Error):
            if not self.fold_at():
                self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            self._connection.close()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what DuckDB says while it opens `path` into what the user can mend."""
    try:
        yield
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        if "Could not set lock" in said:
            raise StoreLocked(f"{path} is open in another process; stop it, or give another --data") from error
        if said_by_system(error) is not None or "Cannot open file" in said:
            raise StoreUnusable(f"{path} cannot be opened: {said}") from error
        raise StoreCorrupt(damaged(path, said)) from error


def _bytes(threshold: int) -> str:
    """A size of the write-ahead log as DuckDB takes it; 0 is never."""
    return f"{threshold} bytes" if threshold else NEVER


def damaged(path: Path, said: str) -> str:
    """What to tell the owner of a damaged file."""
    return (
        f"{path} is damaged: {said}\n"
        f"It was left as it is.  Restore a backup elsewhere ('tidegauge restore BACKUP --data NEW_DIRECTORY'), or move "
        f"{path.name} and {path.name}.wal away to start empty"
    )


def _check_log(path: Path) -> None:
    """Raises StoreCorrupt for a write-ahead log that DuckDB would drop although something was written to it."""
    try:
        with path.open("rb") as file:
            start = file.read(WAL_HEADER_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be read: {error.strerror}") from error
    if len(start) == WAL_HEADER_BYTES and not WAL_HEADER.match(start):
        raise StoreCorrupt(damaged(path.with_suffix(""), f"{path.name} does not start as a write-ahead log does"))
