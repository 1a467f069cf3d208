"""OTLP attribute values as JSON, without loss.

Strings, booleans, integers, finite doubles, lists and maps become their JSON namesakes (1 is an integer, 1.0 a
double).  What JSON cannot say is wrapped in an object with one key that starts with a dollar:
`{"$bytes": base64}`, `{"$double": "NaN"}`, and `{"$map": [[key, value], ...]}` for a map whose keys repeat or start
with a dollar themselves.  An attribute without a value is null.
"""

import base64
import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Json: TypeAlias = Any

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def loads(text: str) -> Json:
    """JSON text as data; ValueError if it is none, RecursionError if it is nested absurdly.

    orjson's speed and the standard library's verdicts: the latter is asked again about what orjson refuses (NaN,
    halves of surrogate pairs, deep nesting) or rounds.
    """
    try:
        found = orjson.loads(text)
        written = orjson.dumps(found)
        # An integer beyond 64 bits has become a double: only those are written with this exponent.  One byte is found
        # ten times as fast as two.
        if b"+" not in written or b"e+" not in written:
            return found
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return json.loads(text)


def dump(data: Json) -> str:
    """The data as compact JSON text; ValueError for NaN and infinities."""
    try:
        text = orjson.dumps(data)
        # orjson writes null for what is not finite.
        if b"null" not in text:
            return text.decode()
    except orjson.JSONEncodeError:
        pass
    return _dump(data)


def encode(data: Json) -> bytes:
    """As `dump`, in UTF-8 and faster, for attributes: their numbers are finite and their texts whole."""
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        return _dump(data).encode()


def plain(value: AnyValue) -> Json:
    """The value as JSON data."""
    which = value.WhichOneof("value")
    if which == "string_value":
        return value.string_value
    if which == "int_value":
        return value.int_value
    if which == "double_value":
        number = value.double_value
        return number if math.isfinite(number) else {"$double": _name(number)}
    if which == "bool_value":
        return value.bool_value
    if which == "array_value":
        return [plain(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return mapping(value.kvlist_value.values)
    if which == "bytes_value":
        return {"$bytes": base64.b64encode(value.bytes_value).decode("ascii")}
    return None


def _name(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def pairs(attributes: Iterable[KeyValue]) -> list[tuple[str, Json]]:
    """Attributes as JSON data, each with its key."""
    return [(attribute.key, plain(attribute.value)) for attribute in attributes]


def by_key(attributes: Iterable[KeyValue]) -> dict[str, Json]:
    """Attributes as JSON data; of a key that repeats the last one."""
    # Most are texts and numbers: asking for those is faster than asking of which kind each is.
    return {
        attribute.key: (value := attribute.value).string_value or value.int_value or plain(value)
        for attribute in attributes
    }


def mapping(attributes: Iterable[KeyValue]) -> dict[str, Json]:
    """Attributes as a JSON object."""
    return as_mapping(pairs(attributes))


def as_mapping(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Pairs as a JSON object, in the wrapped form where keys repeat or start with a dollar."""
    found = dict(pairs)
    if len(found) != len(pairs) or any(key.startswith("$") for key in found):
        return {"$map": [[key, value] for key, value in pairs]}
    return found


def cut(value: Json, limit: int) -> tuple[Json, int]:
    """The value with its strings cut to `limit` characters, and how many characters went."""
    if isinstance(value, str):
        return (value[:limit], len(value) - limit) if len(value) > limit else (value, 0)
    if isinstance(value, list):
        items = [cut(item, limit) for item in value]
        return [item for item, _ in items], sum(lost for _, lost in items)
    if isinstance(value, dict):
        entries = {key: cut(item, limit) for key, item in value.items()}
        return {key: item for key, (item, _) in entries.items()}, sum(lost for _, lost in entries.values())
    return value, 0
