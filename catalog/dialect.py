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
    FLATTENED = "flattened"  # a list or an object spread over span attributes: prefix.0.field, prefix.field
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
    EVENTS_IN = "events_in"  # of a list that ends with the answer, what was before it
    EVENTS_OUT = "events_out"  # and the answer
    DOCUMENTS = "documents"  # what a retrieval found
    JSON = "json"  # JSON text as it is, an object as JSON text
    FLAG = "flag"  # true or false, in strings too
    QUOTED = "quoted"  # text in a JSON string; bare text yields nothing
    TOOLS = "tools"  # definitions of tools, in any client's form
    ARGUMENTS = "arguments"  # JSON; of Python's {"args": [], "kwargs": {...}} the latter
    CONTENT = "content"  # text as it is, lists and objects as JSON text
    TAGS = "tags"  # a list of texts
    METADATA = "metadata"  # an object; ids of users in it are hashed
    METADATA_JSON = "metadata_json"  # likewise, where each value is JSON text
    DOCUMENTS_ONLY = "documents_only"  # as documents, where nothing but the form says that they are some
    RETRIEVAL = "retrieval"  # the kind, for such documents
    EVENT_MESSAGE = "event_message"  # the message of the exception that was recorded
    HASH = "hash"  # keyed hash: the value itself is not stored


# A column that is not here is text.
COLUMN_CONVERSIONS: Mapping[str, Conversion] = MappingProxyType(
    {
        **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), Conversion.INTEGER),
        **dict.fromkeys(("cached_tokens", "cache_creation_tokens", "reasoning_tokens"), Conversion.INTEGER),
        **dict.fromkeys(
            ("cost_usd", "time_to_first_token_s", "queue_time_s", "prefill_time_s", "decode_time_s"), Conversion.NUMBER
        ),
        **dict.fromkeys(("inference_time_s", "request_duration_s"), Conversion.NUMBER),
        "user_id": Conversion.HASH,
        "finish_reason": Conversion.FIRST,
        "error_type": Conversion.CLASS_NAME,
        "response_schema": Conversion.JSON,
        "stream": Conversion.FLAG,
        "tool_definitions": Conversion.TOOLS,
        "tool_arguments": Conversion.ARGUMENTS,
        "tool_result": Conversion.CONTENT,
        "tags": Conversion.TAGS,
        "metadata": Conversion.METADATA,
        "input_messages": Conversion.MESSAGES_IN,
        "output_messages": Conversion.MESSAGES_OUT,
        "retrieved_documents": Conversion.DOCUMENTS,
        "feature_flags": Conversion.EVENT_FLAGS,
        "system_instructions": Conversion.CONTENT,
        "answer_tool_calls": Conversion.MESSAGES_OUT,
        "own_metadata": Conversion.METADATA,
    }
)
# Not columns of `spans`, but what settles some of them once all is known (collector/otlp/settle.py):
# a system prompt beside the messages; the tool calls of an answer whose text stands elsewhere; the metadata of an
# observation besides its trace's; and which tokens the usage counts apart from input or output: `cached`, `reasoning`,
# or `rest`: what the total has besides the input is output.
SETTLING = frozenset({"system_instructions", "answer_tool_calls", "own_metadata", "usage_apart"})
KINDS = frozenset({"llm", "embedding", "retrieval", "tool", "agent", "chain", "other"})
VANTAGES = frozenset({"client", "gateway", "frontend", "engine"})


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One place from which a column may come.

    `order` is unique and says who is asked first; the kind of a span is always decided first.  `json` says that the
    value, or each item of a list, is JSON text; `paths` are alternatives inside it (`a.b`, `choices.0.message`,
    `input+output` for a sum, `input+?cached` where what comes after the `?` may be absent).
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
    values: Mapping[str, str | bool]
    value: str | bool | None


@dataclass(frozen=True)
class Shape:
    """One part of a message in the form of OpenTelemetry GenAI, and what clients call it and its fields."""

    type: str
    names: frozenset[str]
    fields: Mapping[str, tuple[str, ...]]
    parse: frozenset[str]  # fields that are JSON, often within a string


@dataclass(frozen=True)
class Shapes:
    """How clients write messages, documents and tools; `catalog/dialects/shapes.toml`."""

    parts: Mapping[str, Shape]  # by every name a client uses
    wrappers: tuple[str, ...]  # keys around a message or a part that mean nothing
    containers_in: tuple[str, ...]  # keys under which a request keeps its messages
    containers_out: tuple[str, ...]  # and an answer
    system: tuple[str, ...]  # keys of a system prompt beside the messages
    documents: Mapping[str, tuple[str, ...]]  # our field: theirs
    document_lists: tuple[str, ...]
    tools: Mapping[str, tuple[str, ...]]
    tool_wrappers: tuple[str, ...]


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


@cache
def user_keys() -> frozenset[str]:
    """Attributes that name a person."""
    return frozenset(source.key for source in sources() if source.conversion is Conversion.HASH)


_OBJECTS = (Conversion.METADATA, Conversion.METADATA_JSON)


def _of_object(key: str) -> tuple[Source, ...]:
    """The sources that read an object spread over attributes of which this is one; its user has a column."""
    index = _index(Place.FLATTENED)
    dots = [at + 1 for at, letter in enumerate(key) if letter == "."]
    found = (source for end in dots for source in index.get(key[:end], ()))
    return tuple(source for source in found if source.conversion in _OBJECTS and key not in user_keys())


# Keys come from outside: the cache is bounded.
@lru_cache(maxsize=8192)
def of_attribute(key: str) -> tuple[Source, ...]:
    """The sources that read this span attribute, flattened lists included."""
    exact = _index(Place.ATTRIBUTE).get(key, ()) + _of_object(key)
    numbered = _NUMBERED.match(key)
    if numbered is None:
        return exact
    lists = _index(Place.FLATTENED).get(numbered.group(1), ())
    return exact + tuple(source for source in lists if source not in exact)


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
    """How clients write messages, documents and tools."""
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
        tools={name: tuple(_strings(keys)) for name, keys in document["tool"]["fields"].items()},
        tool_wrappers=tuple(document["tool"]["wrappers"]),
    )
