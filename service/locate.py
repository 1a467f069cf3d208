"""How commands find the service that has a data directory open: a file with its address and a local token."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = "service.json"


@dataclass(frozen=True)
class Running:
    """A running service: its URL, its process and the token that its admin routes take from this machine."""

    url: str
    pid: int
    token: str


def new_token() -> str:
    """A token for one run of the service."""
    return secrets.token_urlsafe(32)


def announce(directory: Path, url: str, token: str) -> Running:
    """Writes the file, readable by its owner alone."""
    running = Running(url, os.getpid(), token)
    path = directory / FILE
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(vars(running), file)
    temporary.replace(path)
    return running


def withdraw(directory: Path) -> None:
    """Removes the file; it may be gone already."""
    (directory / FILE).unlink(missing_ok=True)


def find(directory: Path) -> Running | None:
    """The service that announced itself there and still lives; None if there is none."""
    try:
        entry: Mapping[str, object] = json.loads((directory / FILE).read_text())
        running = Running(str(entry["url"]), int(str(entry["pid"])), str(entry["token"]))
    except (OSError, ValueError, KeyError):
        return None
    return running if _lives(running.pid) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
