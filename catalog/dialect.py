"""Attribute dialects: which keys each tracing client uses for the columns of `spans`, as data.

`catalog/dialects/*.toml` says, for each column, where its value stands (a span's attribute, the resource's, an
event's time, a flattened list, ...) and how it is converted.  Decoding is one loop over these tables; a new client
is a new file.  Where several sources of a column are present the first that yields a value wins: files in the order
of their `order`, entries and keys as written, a span's own before its resource's.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any


class Place(StrEnum):
    """Where a value stands; also the key of a `[[map]]` entry that names it."""

    ATTRIBUTE = "attribute"  # an attribute of the span
    FLATTENED = "flattened"  # a list spread over span attributes: prefix.0.field, prefix.1.field
    RESOURCE = "resource"  # an attribute of the resource
    EVENT = "event"  # an event of the span, by name
    SCOPE = "scope"  # the name of the instrumentation scope
    NAME = "name"  # the name of the span
    SPAN_KIND = "span_kind"  # OpenTelemetry's own kind: CLIENT, SERVER, INTERNAL, PRODUCER, CONSUMER


class Conversion(StrEnum):
    """How a value becomes the column's."""

    TEXT = "text"
    INTEGER = "integer"  # not negative; numbers in strings too
    NUMBER = "number"  # not negative; seconds where the column is a time
    MILLISECONDS = "milliseconds"
    ISO_TIME = "iso_time"  # an instant; the column is its distance from the span's start
    EVENT_TIME = "event_time"  # the event's time; the column is its distance from the span's start
    EVENT_FLAGS = "event_flags"  # feature flag evaluations
    EVENT_ERROR = "event_error"  # the class of the exception that was recorded
    FIRST = "first"  # the first element of a list, or the scalar itself
    HEAD = "head"  # what stands before the first dot
    CLASS_NAME = "class_name"  # <class 'openai.RateLimitError'> and openai.RateLimitError: RateLimitError
    MESSAGES_IN = "messages_in"  # a prompt, in any client's form
    MESSAGES_OUT = "messages_out"  # an answer, in any client's form
    DOCUMENTS = "documents"  # what a retrieval found
    JSON = "json"  # JSON text as it is, an object as JSON text
    HASH = "hash"  # keyed hash: the value itself is not stored


# A column that is not here is text.
COLUMN_CONVERSIONS: Mapping[str, Conversion] = MappingProxyType(
    {
        **dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"), Conversion.INTEGER),
        **dict.fromkeys(
            ("cost_usd", "time_to_first_token_s", "queue_time_s", "prefill_time_s", "decode_time_s"), Conversion.NUMBER
        ),
        **dict.fromkeys(("inference_time_s", "request_duration_s"), Conversion.NUMBER),
        "user_id": Conversion.HASH,
        "finish_reason": Conversion.FIRST,
        "error_type": Conversion.CLASS_NAME,
        "response_schema": Conversion.JSON,
        "input_messages": Conversion.MESSAGES_IN,
        "output_messages": Conversion.MESSAGES_OUT,
        "retrieved_documents": Conversion.DOCUMENTS,
        "feature_flags": Conversion.EVENT_FLAGS,
    }
)
KINDS = frozenset({"llm", "embedding", "retrieval", "tool", "agent", "chain", "other"})
VANTAGES = frozenset({"client", "gateway", "frontend", "engine"})


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One place from which a column may come.

    `order` is unique and says who is asked first; the kind of a span is always decided first.  `json` says that the
    value is JSON text; `paths` are alternatives inside it (`a.b`, `choices.0.message`, `input+output` for a sum).
    `needs` is another span attribute that must be there, with `needs_value` if not empty.  `kinds` restricts to
    spans of these kinds.  `values` translates (a value that is not in it yields nothing); `value` is a constant.
    """

    order: int
    dialect: str
    column: str
    place: Place
    key: str
    conversion: Conversion
    json: bool
    paths: tuple[tuple[tuple[str, ...], ...], ...]
    needs: str
    needs_value: str
    kinds: frozenset[str]
    values: Mapping[str, str]
    value: str | None


@dataclass(frozen=True)
class Shape:
    """One part of a message in the form of OpenTelemetry GenAI, and what clients call it and its fields."""

    type: str
    names: frozenset[str]
    fields: Mapping[str, tuple[str, ...]]
    parse: frozenset[str]  # fields that are JSON, often within a string


@dataclass(frozen=True)
class Shapes:
    """How clients write messages and documents; `catalog/dialects/shapes.toml`."""

    parts: Mapping[str, Shape]  # by every name a client uses
    wrappers: tuple[str, ...]  # keys around a message or a part that mean nothing
    containers_in: tuple[str, ...]  # keys under which a request keeps its messages
    containers_out: tuple[str, ...]  # and an answer
    system: tuple[str, ...]  # keys of a system prompt beside the messages
    documents: Mapping[str, tuple[str, ...]]  # our field: theirs
    document_lists: tuple[str, ...]


_ENTRY_KEYS = {"column", "as", "json", "path", "needs", "kinds", "values", "value"} | set(Place)
_NOT_DIALECTS = ("shapes.toml", "values.toml")


def _documents() -> Iterator[tuple[str, dict[str, Any]]]:
    found = []
    for path in files("catalog").joinpath("dialects").iterdir():
        if path.name.endswith(".toml") and path.name not in _NOT_DIALECTS:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            found.append((document["order"], path.name, document))
    yield from ((name, document) for _, name, document in sorted(found, key=lambda item: item[:2]))


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files("catalog").joinpath("dialects", name).read_text(encoding="utf-8"))


def _strings(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _paths(value: str | list[str]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    return tuple(tuple(tuple(term.split(".")) for term in path.split("+")) for path in _strings(value))


def _sources(file: str, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in document["map"]:
        places = [place for place in Place if place in entry]
        unknown = set(entry) - _ENTRY_KEYS
        if len(places) != 1 or unknown:
            raise ValueError(f"{file}: {entry['column']}: one place, and no key of its own; found {sorted(entry)}")
        column, place = entry["column"], places[0]
        default = COLUMN_CONVERSIONS.get(column, Conversion.TEXT)
        if place is Place.EVENT:
            default = Conversion.EVENT_TIME
        needs, _, needs_value = entry.get("needs", "").partition("=")
        for key in _strings(entry[place]):
            yield {
                "dialect": document["dialect"],
                "column": column,
                "place": place,
                "key": key,
                "conversion": Conversion(entry.get("as", default)),
                "json": entry.get("json", "path" in entry),
                "paths": _paths(entry.get("path", [])),
                "needs": needs,
                "needs_value": needs_value,
                "kinds": frozenset(entry.get("kinds", ())),
                "values": {name.casefold(): value for name, value in entry.get("values", {}).items()},
                "value": entry.get("value"),
            }


@cache
def sources() -> tuple[Source, ...]:
    """All sources of all dialects in the order in which they are asked."""
    found = [source for file, document in _documents() for source in _sources(file, document)]
    found.sort(key=lambda source: source["column"] != "kind")
    return tuple(Source(order=order, **source) for order, source in enumerate(found))


@cache
def _index(place: Place) -> Mapping[str, tuple[Source, ...]]:
    index: dict[str, tuple[Source, ...]] = {}
    for source in sources():
        if source.place is place:
            index[source.key] = (*index.get(source.key, ()), source)
    return index


_NUMBERED = re.compile(r"(.*?\.)\d+(?:\.|$)")


# Keys come from outside: the cache is bounded.
@lru_cache(maxsize=8192)
def of_attribute(key: str) -> tuple[Source, ...]:
    """The sources that read this span attribute, flattened lists included."""
    exact = _index(Place.ATTRIBUTE).get(key, ())
    numbered = _NUMBERED.match(key)
    if numbered is None:
        return exact
    return exact + _index(Place.FLATTENED).get(numbered.group(1), ())


def of_place(place: Place, key: str) -> tuple[Source, ...]:
    """The sources that read this resource attribute, event, scope, name or span kind."""
    return _index(place).get(key, ())


@cache
def spellings() -> Mapping[str, Mapping[str, str]]:
    """Column: spelling (case folded): the one we keep; a spelling that is not there is kept as it is."""
    return MappingProxyType(
        {
            column: {name.casefold(): kept for kept, names in table.items() for name in (kept, *names)}
            for column, table in _table("values.toml").items()
        }
    )


@cache
def shapes() -> Shapes:
    """How clients write messages and documents."""
    document = _table("shapes.toml")
    parts: dict[str, Shape] = {}
    for entry in document["part"]:
        fields = {name: tuple(_strings(keys)) for name, keys in entry["fields"].items()}
        shape = Shape(entry["type"], frozenset(entry["names"]), fields, frozenset(entry.get("parse", ())))
        parts.update(dict.fromkeys({shape.type, *shape.names}, shape))
    message = document["message"]
    return Shapes(
        parts=parts,
        wrappers=tuple(message["wrappers"]),
        containers_in=tuple(message["containers_in"]),
        containers_out=tuple(message["containers_out"]),
        system=tuple(message["system"]),
        documents={name: tuple(_strings(keys)) for name, keys in document["document"]["fields"].items()},
        document_lists=tuple(document["document"]["lists"]),
    )
