"""OTLP attribute values as JSON, without loss.

Strings, booleans, integers, finite doubles, lists and maps become their JSON namesakes (1 is an integer, 1.0 a
double).  What JSON cannot say is wrapped in an object with one key that starts with a dollar:
`{"$bytes": base64}`, `{"$double": "NaN"}`, and `{"$map": [[key, value], ...]}` for a map whose keys repeat or start
with a dollar themselves.  An attribute without a value is null.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Json: TypeAlias = Any

dump: Callable[[Json], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


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


def mapping(attributes: Iterable[KeyValue]) -> dict[str, Json]:
    """Attributes as a JSON object."""
    return as_mapping([(attribute.key, plain(attribute.value)) for attribute in attributes])


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
