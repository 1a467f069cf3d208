"""Whether the disk takes what comes: looked at before each commit, so that it is refused before it is lost."""

import errno
import logging
import os
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic

import duckdb

from store.settings import StoreSettings, size_in_bytes

LOG = logging.getLogger(__name__)

DEFAULT_RESERVE_BYTES = 512 * 1024**2
DEFAULT_RESERVE_SHARE = 0.05
# Room must have grown by this much of the reserve before anything is taken again: no flapping at the edge.
HYSTERESIS = 0.1
RETRY_SECONDS = 1.0
PROBE_FILE = ".probe"
PROBE_BYTES = 256 * 1024
# A smaller write-ahead log is not worth the blocks that folding it takes.
LEAST_FOLD_BYTES = 4 * 1024**2


class Trouble(StrEnum):
    """What is wrong; a metric's label.  All but `CORRUPT` refuse what comes."""

    DISK_LOW = "disk_low"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    IO_ERROR = "io_error"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Problem:
    """A trouble, and a sentence about it for people."""

    trouble: Trouble
    message: str


# What DuckDB's messages end with, which are the system's.
_BY_TEXT = {
    os.strerror(errno.ENOSPC): Trouble.DISK_FULL,
    os.strerror(errno.EDQUOT): Trouble.DISK_FULL,
    os.strerror(errno.EFBIG): Trouble.DISK_FULL,
    os.strerror(errno.EROFS): Trouble.READ_ONLY,
    os.strerror(errno.EACCES): Trouble.READ_ONLY,
    os.strerror(errno.EIO): Trouble.IO_ERROR,
}
_SENTENCES = {
    Trouble.DISK_FULL: "the disk of {0} is full",
    Trouble.READ_ONLY: "{0} cannot be written: its disk is read-only, or not ours to write",
    Trouble.IO_ERROR: "the disk of {0} fails",
    Trouble.CORRUPT: "{0} holds damaged blocks: what stands there cannot be read",
}


def invalidated(error: BaseException) -> bool:
    """Whether DuckDB gave up after this error and has to be opened anew; what was committed is in its files."""
    return isinstance(error, duckdb.FatalException) or (
        isinstance(error, duckdb.ConnectionException) and "closed" in str(error).lower()
    )


def said_by_system(error: BaseException) -> Trouble | None:
    """The trouble that the system named in a message of DuckDB."""
    text = str(error)
    return next((trouble for said, trouble in _BY_TEXT.items() if said in text), None)


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error of the database says about its disk; None for one that is the statement's own fault."""
    if "Corrupt database file" in str(error):
        return Trouble.CORRUPT
    if (trouble := said_by_system(error)) is not None:
        return trouble
    return Trouble.IO_ERROR if isinstance(error, duckdb.IOException) or invalidated(error) else None


class StoreHealth:
    """Watches the directory's disk.  Every method may be called from any thread."""

    def __init__(self, directory: Path, settings: StoreSettings) -> None:
        self._directory = directory
        self._wal = directory / "tidegauge.duckdb.wal"
        self._reserve = settings.min_free_bytes
        self._fold_at = size_in_bytes(settings.checkpoint_threshold)
        self._lock = threading.Lock()
        self._failed: Problem | None = None
        self._retry_at = 0.0
        self._low = False
        self._said: Trouble | None = None
        self.corrupt: Problem | None = None

    def problem(self) -> Problem | None:
        """Why nothing can be stored now; None if it can.  Tries again, with a small file, a second after an error."""
        with self._lock:
            found = self._disk() or self._after_failure()
            if found is not None and found.trouble != self._said:
                LOG.error("store_refuses", extra={"trouble": found.trouble.value, "problem": found.message})
            elif found is None and self._said is not None:
                LOG.warning("store_takes_again", extra={"trouble": self._said.value})
            self._said = found.trouble if found else None
            return found

    def problems(self) -> list[Problem]:
        """All that is wrong now."""
        return [found for found in (self.problem(), self.corrupt) if found is not None]

    def failed(self, error: BaseException) -> Problem | None:
        """Takes note of an error of the database; the problem if it is the disk's, None if the statement's."""
        trouble = trouble_of(error)
        if trouble is None:
            return None
        problem = Problem(trouble, _SENTENCES[trouble].format(self._directory))
        with self._lock:
            if trouble is Trouble.CORRUPT:
                if self.corrupt is None:
                    LOG.error("store_corrupt", extra={"problem": problem.message})
                self.corrupt = problem
            else:
                self._failed = problem
                self._retry_at = monotonic() + RETRY_SECONDS
        return problem

    def fold_at(self) -> int:
        """Bytes of the write-ahead log at which to fold it into the database, while there is room to; 0 is never.

        Folding writes about as much as the log holds before it gives the log's own space back, and a fold that finds
        the disk full takes the whole database down.  So the log takes half of what is above the reserve at most.
        """
        try:
            free, reserve, _ = self._space()
        except OSError:
            return 0
        wal = self.wal_bytes()
        if wal + LEAST_FOLD_BYTES > free:
            return 0
        return min(self._fold_at, max((free + wal - reserve) // 2, LEAST_FOLD_BYTES))

    def _space(self) -> tuple[int, int, bool]:
        """Bytes free to us, the reserve, and whether the disk is read-only."""
        stat = os.statvfs(self._directory)
        share = int(stat.f_blocks * stat.f_frsize * DEFAULT_RESERVE_SHARE)
        reserve = min(DEFAULT_RESERVE_BYTES, share) if self._reserve is None else int(self._reserve)
        return stat.f_bavail * stat.f_frsize, reserve, bool(stat.f_flag & os.ST_RDONLY)

    def wal_bytes(self) -> int:
        """Size of the write-ahead log."""
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def _disk(self) -> Problem | None:
        """What the filesystem itself says."""
        try:
            free, reserve, read_only = self._space()
        except OSError as error:
            return Problem(Trouble.IO_ERROR, f"{self._directory}: {error.strerror}")
        if read_only:
            return Problem(Trouble.READ_ONLY, _SENTENCES[Trouble.READ_ONLY].format(self._directory))
        # Room to fold the log is part of the reserve: it is what makes room again after a delete.
        needed = reserve + self.wal_bytes()
        self._low = free < needed + (int(reserve * HYSTERESIS) if self._low else 0)
        if not self._low:
            return None
        return Problem(
            Trouble.DISK_LOW,
            f"{free // 2**20} MiB are free on the disk of {self._directory}; {needed // 2**20} MiB are kept in reserve "
            "(store.min_free_bytes, and room to fold the write-ahead log)",
        )

    def _after_failure(self) -> Problem | None:
        if self._failed is not None and monotonic() >= self._retry_at:
            try:
                self._probe()
                self._failed = None
            except OSError as error:
                trouble = _BY_TEXT.get(os.strerror(error.errno or 0), Trouble.IO_ERROR)
                self._failed = Problem(trouble, _SENTENCES[trouble].format(self._directory))
                self._retry_at = monotonic() + RETRY_SECONDS
        return self._failed

    def _probe(self) -> None:
        """Writes a small file through to the disk; raises OSError."""
        path = self._directory / PROBE_FILE
        try:
            with path.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            path.unlink(missing_ok=True)
