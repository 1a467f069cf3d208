"""Prometheus's `file_sd` files, YAML or JSON."""

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from collector.discovery.found import Found
from collector.discovery.groups import founds_in
from collector.targets import clashes

MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class ListedFile:
    """A file, what it listed when it was last good, and what is wrong with it now."""

    stamp: tuple[int, int] = (0, 0)
    found: list[Found] = field(default_factory=list)
    error: str = ""


class Files:
    """The files that some patterns name.  A broken one keeps its last good version."""

    def __init__(self, patterns: Sequence[str], *, checking: bool) -> None:
        self._patterns = tuple(patterns)
        self._checking = checking
        self.known: dict[str, ListedFile] = {}

    def refresh(self) -> int:
        """Reads the files that have changed, and forgets those that are gone; how many could not be read."""
        paths = sorted({path for pattern in self._patterns for path in glob.glob(pattern)})
        self.known = {path: self.known.get(path) or ListedFile() for path in paths}
        return sum(not self._read(path, file) for path, file in self.known.items())

    def _read(self, path: str, file: ListedFile) -> bool:
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == file.stamp:
                return True
            if status.st_size > MAX_FILE_BYTES:
                raise ValueError(f"{status.st_size} bytes; at most {MAX_FILE_BYTES}")
            with open(path, encoding="utf-8") as source:
                found = listed(source.read(), path, checking=self._checking)
        except (OSError, ValueError) as error:
            kept = f"; its last good version ({len(file.found)} targets) stays in use" if file.found else ""
            file.error = f"{error}{kept}"
            return False
        file.stamp, file.found, file.error = stamp, found, ""
        return True


def listed(text: str, path: str, *, checking: bool) -> list[Found]:
    """The targets that a file lists.  Raises ValueError saying what is wrong.

    No text at all is an error: a file that is being written, or torn, looks like that, and must not end every scrape;
    `[]` says that there are no targets.
    """
    if not text.strip():
        raise ValueError("empty: being written, or torn; write [] to say that there are no targets")
    meta = {"__meta_filepath": os.path.abspath(path)}
    found = founds_in(_document(text, path), f"file_sd {path}", meta, checking=checking)
    if checking and (faults := clashes(one.target(one.labels) for one in found)):
        raise ValueError("; ".join(faults))
    return found


def _document(text: str, path: str) -> Any:
    try:
        return json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
