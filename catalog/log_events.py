"""Log records that say something of a span: which event is read as what, as data in `catalog/log_events.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

GENAI = "gen_ai."


class ReadAs(StrEnum):
    """What a record of an event is to its span."""

    SPAN = "span"
    SPAN_EVENT = "span_event"
    MESSAGE = "message"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class LogEvent:
    """How records of an event are read; the head of `log_events.toml` explains each key."""

    read_as: ReadAs
    span_event: str = ""
    column: str = ""
    role: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(files("catalog").joinpath("log_events.toml").read_text(encoding="utf-8"))


@cache
def message_keys() -> frozenset[str]:
    """Keys of a message's body that the span's column holds."""
    return frozenset(_document()["message_keys"])


@cache
def log_events() -> Mapping[str, LogEvent]:
    """How a record is read, by the name of its event."""
    found: dict[str, LogEvent] = {}
    for entry in _document()["event"]:
        rest = {key: value for key, value in entry.items() if key not in ("names", "as", "fields")}
        fields = {name: tuple(keys) for name, keys in entry.get("fields", {}).items()}
        event = LogEvent(read_as=ReadAs(entry["as"]), fields=fields, **rest)
        for name in entry["names"]:
            if name in found:
                raise ValueError(f"log_events.toml: {name} is there twice")
            found[name] = event
    return MappingProxyType(found)


def is_genai(event_name: str) -> bool:
    """Whether an event is one of GenAI's, read here or not."""
    return event_name.startswith(GENAI)
