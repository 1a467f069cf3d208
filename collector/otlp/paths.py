"""Which HTTP paths are OTLP's: `/v1/traces` and the like, below whatever base path a client was made for.

Clients append `/v1/traces` to the base URL of the product that they were written for (Langfuse's is
`/api/public/otel`), or are set up with a base that ends in a slash.  All of them only have to change the host.
"""

import re
from collections.abc import Mapping

from collector.otlp.outcome import Signal
from collector.otlp.sender import OTHER

PATHS: Mapping[str, Signal] = {f"/v1/{signal.value}": signal for signal in Signal}
# Base paths that are counted by themselves; any other works as well, and is counted as `other`.
BASES = ("", "/api/public/otel")
ROUTES = frozenset(f"{base}{path}" for base in BASES for path in PATHS)
SLASHES = re.compile(r"/{2,}")
MAX_CHARACTERS = 200
# Ours: a path below it is never OTLP's.
API = "/api"


def normal(path: str) -> str:
    """The path without doubled and trailing slashes."""
    return SLASHES.sub("/", path).rstrip("/") or "/"


def signal_of(path: str) -> Signal | None:
    """The signal that is sent to this path; None if the path is none of OTLP's."""
    path = normal(path)
    if len(path) > MAX_CHARACTERS:
        return None
    base, mark, name = path.rpartition("/v1/")
    return PATHS.get(f"/v1/{name}") if mark and base != API else None


def route_of(path: str) -> str:
    """The label under which requests to this path are counted."""
    path = normal(path)
    return path if path in ROUTES else OTHER
