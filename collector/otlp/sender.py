"""Who sends an export request, as far as its transport knows."""

import re
from dataclasses import dataclass

# Longer ones are cut: they come from anybody.
MAX_CHARACTERS = 80
OTHER = "other"
# What might be a key that somebody put where it does not belong.
SECRET = re.compile(r"[A-Za-z0-9_-]{24,}")


@dataclass(frozen=True, slots=True)
class Sender:
    """What a transport says of a request besides its body.

    `transport` and `route` are labels of metrics: http, grpc or replay, and the path where it is one of a known few.
    `path` is what was asked for, `key` the id of the API key (never its text; empty where none was needed), `tenants`
    those that the key is bound to (None: to none), `client` the program, as it calls itself.
    """

    transport: str
    route: str = OTHER
    path: str = ""
    key: str = ""
    tenants: frozenset[str] | None = None
    client: str = ""


def shown(text: str) -> str:
    """A text of a stranger's, short enough and printable."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_CHARACTERS])


def shown_path(path: str) -> str:
    """A path likewise, without what might be a key."""
    return SECRET.sub("…", shown(path))
