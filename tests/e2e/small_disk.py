"""A disk that can be filled up and freed: a small tmpfs, or where mounting is not allowed a bound on files' sizes."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

MIB = 1024**2


class SmallDisk(Protocol):
    """The disk under a service's data directory."""

    def shrink(self, pid: int) -> None:
        """Leaves the process `pid` little room."""

    def grow(self, pid: int) -> None:
        """Gives it room again."""


class Tmpfs:
    """Little room is all but a few MiB taken by somebody else's file."""

    def __init__(self, path: Path, left: int) -> None:
        self._balloon = path / "somebody-else"
        self._left = left

    def shrink(self, pid: int) -> None:
        stat = os.statvfs(self._balloon.parent)
        with self._balloon.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(stat.f_bavail * stat.f_frsize - self._left, 1))

    def grow(self, pid: int) -> None:
        self._balloon.unlink()


class FileBound:
    """Little room is a bound on the size of each file, which DuckDB is told of in the same way."""

    def __init__(self, left: int) -> None:
        self._left = left

    def shrink(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._left, resource.RLIM_INFINITY))

    def grow(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(path: Path, size: int, left: int) -> Iterator[SmallDisk]:
    """A disk of `size` bytes at `path`, of which `left` are left once it has shrunk."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield FileBound(left)
        return
    try:
        yield Tmpfs(path, left)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
