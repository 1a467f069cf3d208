"""What waits to be written, on disk: it survives a restart, and is bounded."""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Waiting:
    """A request that waits: Unix time of its samples, how many, and the message of 1.0, not compressed by snappy."""

    number: int
    at: float
    samples: int
    body: bytes


@dataclass(frozen=True)
class Backlog:
    """What waits in all; `oldest` is the Unix time of the oldest samples."""

    requests: int
    bytes: int
    oldest: float | None


class DiskQueue:
    """First in, first out.  Safe to use from several threads; one process at a time."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Opens or makes the file; one that SQLite cannot read is set aside under another name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError:
            path.replace(path.with_suffix(".corrupt"))
            self._database = _open(path)

    def put(self, at: float, samples: int, body: bytes) -> int:
        """Adds a request; gives the number of samples that had to go for it, the oldest first."""
        with self._lock, self._database:
            dropped = self._make_room(len(body))
            self._database.execute("INSERT INTO waiting (at, samples, body) VALUES (?, ?, ?)", (at, samples, body))
            return dropped

    def head(self) -> Waiting | None:
        """The oldest request; it stays until it is `done`."""
        with self._lock:
            row = self._database.execute(
                "SELECT number, at, samples, body FROM waiting ORDER BY number LIMIT 1"
            ).fetchone()
        return Waiting(*row) if row else None

    def done(self, number: int) -> None:
        """Forgets a request."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM waiting WHERE number = ?", (number,))

    def backlog(self) -> Backlog:
        """How much waits."""
        with self._lock:
            count, size, oldest = self._database.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0), min(at) FROM waiting"
            ).fetchone()
        return Backlog(count, size, oldest)

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with self._lock:
            self._database.close()

    def _make_room(self, size: int) -> int:
        total = self._database.execute("SELECT coalesce(sum(length(body)), 0) FROM waiting").fetchone()[0] + size
        dropped = 0
        while total > self._max_bytes:
            row = self._database.execute(
                "DELETE FROM waiting WHERE number = (SELECT min(number) FROM waiting) RETURNING samples, length(body)"
            ).fetchone()
            if row is None:
                break
            dropped, total = dropped + row[0], total - row[1]
        return dropped


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    # The write-ahead log survives a killed process; what a power cut may cost is the last seconds.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA auto_vacuum = FULL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS waiting"
        " (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, samples INTEGER, body BLOB)"
    )
    return database
