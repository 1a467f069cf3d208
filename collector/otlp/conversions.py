"""Conversions from an attribute's value to a column's; each gives None for what it cannot read."""

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from catalog.dialect import Conversion, Source, sources, spellings, user_keys
from collector.otlp.attributes import dump, loads
from collector.otlp.documents import are_documents, documents_json, tools_json
from collector.otlp.messages import MISSING, messages_json, parsed, pick


class Context(NamedTuple):
    """What conversions need to know besides the value."""

    start_ns: int
    limit: int  # characters
    key: bytes


def convert(source: Source, value: Any, context: Context) -> Any:
    """The column's value, or None if the source does not yield one."""
    if source.value is not None:
        return source.value if value not in (None, "", [], {}) else None
    try:
        if source.json:
            value = [parsed(item) for item in value] if isinstance(value, list) else parsed(value)
        if source.paths:
            value = _first_path(value, source)
        if value is None or value == "":
            return None
        made = CONVERSIONS[source.conversion](value, context)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        # Broken JSON, lists for names, absurd nesting or numbers: not said.  The attribute itself is kept as it came.
        return None
    if source.values:
        if isinstance(made, bool):
            made = "true" if made else "false"
        return source.values.get(made.casefold()) if isinstance(made, str) else None
    known = spellings().get(source.column)
    return known.get(made.casefold(), made) if known and isinstance(made, str) else made


def _first_path(value: Any, source: Source) -> Any:
    for terms in source.paths:
        found = [item for term in terms if (item := _term(value, term)) is not MISSING]
        if all(item is not None for item in found):
            return found[0] if len(terms) == 1 else sum(float(item) for item in found)
    return None


def _term(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at the path; MISSING if nothing does and nothing has to."""
    if not path[0].startswith("?"):
        return pick(value, path)
    found = pick(value, (path[0][1:], *path[1:]))
    return MISSING if found is None else found


def _text(value: Any, _: Context) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return None


def _number(value: Any, _: Context) -> float | None:
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    number = float(value)
    return number if math.isfinite(number) and number >= 0 else None


def _integer(value: Any, context: Context) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 2**63 else None
    number = _number(value, context)
    return int(number) if number is not None and number.is_integer() and number < 2**53 else None


def _milliseconds(value: Any, context: Context) -> float | None:
    number = _number(value, context)
    return None if number is None else number / 1000


def _iso_time(value: Any, context: Context) -> float | None:
    moment = parsed(value)
    if not isinstance(moment, str):
        return None
    instant = datetime.fromisoformat(moment)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    seconds = (instant - datetime.fromtimestamp(0, UTC)).total_seconds() - context.start_ns / 1e9
    return seconds if seconds >= 0 else None


def _event_time(value: Any, context: Context) -> float | None:
    """`value`: the time of the first such event, in nanoseconds."""
    return (value - context.start_ns) / 1e9 if value >= context.start_ns else None


def _first(value: Any, context: Context) -> str | None:
    value = parsed(value)
    while isinstance(value, list) and value:
        value = parsed(value[0])
    return _text(value, context) or None


def _head(value: Any, _: Context) -> str | None:
    return value.split(".", 1)[0] if isinstance(value, str) else None


_REPR = re.compile(r"<class '([^']+)'>")
_DOTTED = re.compile(r"(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)")


def _class_name(value: Any, context: Context) -> str | None:
    text = _text(value, context)
    if text is None:
        return None
    name = found.group(1) if (found := _REPR.fullmatch(text)) else text
    return dotted.group(1) if (dotted := _DOTTED.fullmatch(name)) else name


def _event_error(value: Any, context: Context) -> str | None:
    """`value`: the attributes of the events; the last exception is the one that ended the span."""
    return _class_name(value[-1].get("exception.type"), context) or None


def _json(value: Any, _: Context) -> str | None:
    if isinstance(value, str):
        return value if isinstance(parsed(value), (dict, list)) else None
    return dump(value) if isinstance(value, (dict, list)) else None


def hashed(value: Any, key: bytes) -> str:
    """A keyed hash, the same for the same value under the same key: 32 hex digits."""
    text = value if isinstance(value, str) else dump(value)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()


@cache
def _user_fields() -> Mapping[str, frozenset[str]]:
    """Attributes that hold objects, and which of their fields name a person."""
    return {
        source.key: frozenset(terms[0][0] for terms in source.paths)
        for source in sources()
        if source.conversion is Conversion.HASH and source.paths
    }


def hidden(key: str, value: Any, secret: bytes) -> Any:
    """The value of an attribute; the id of a user is hashed, be it the whole or a field."""
    if key not in user_keys() or value in ("", None):
        return value
    fields = _user_fields().get(key)
    if fields is None:
        return {"$hashed": hashed(value, secret)}
    document = parsed(value)
    if not isinstance(document, Mapping) or fields.isdisjoint(document):
        return value
    safe = _without_users(document, fields, secret)
    return dump(safe) if isinstance(value, str) else safe


def _without_users(document: Mapping[str, Any], fields: Collection[str], secret: bytes) -> dict[str, Any]:
    return {
        name: {"$hashed": hashed(value, secret)} if name in fields and value not in ("", None) else value
        for name, value in document.items()
    }


def _flag(value: Any, _: Context) -> bool | None:
    value = parsed(value)
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.casefold())
    return value if isinstance(value, bool) else None


def _quoted(value: Any, _: Context) -> str | None:
    inner = parsed(value)
    return inner if isinstance(inner, str) and inner is not value else None


def _content(value: Any, _: Context) -> str | None:
    return value if isinstance(value, str) else dump(value)


def _arguments(value: Any, _: Context) -> str | None:
    """Arguments of a call: those of Python functions are given by position and by name, mostly only by name."""
    document = parsed(value)
    if isinstance(document, Mapping) and document.keys() == {"args", "kwargs"}:
        return dump(document if document["args"] else document["kwargs"])
    return value if isinstance(value, str) else dump(value)


def _tags(value: Any, _: Context) -> str | None:
    value = parsed(value)
    found = [item for item in value if isinstance(item, str)] if isinstance(value, list) else [value] * (value != "")
    return dump(found) if found and all(isinstance(item, str) for item in found) else None


def _metadata(value: Any, context: Context) -> str | None:
    """`value`: an object, or what was spread over attributes, as a list of one."""
    found = _object(value)
    return dump(_without_users(found, _user_names(), context.key)) if found else None


def _metadata_json(value: Any, context: Context) -> str | None:
    """As `_metadata`, for values that are JSON texts."""
    found = {name: _scalar(item) for name, item in (_object(value) or {}).items()}
    return dump(_without_users(found, _user_names(), context.key)) if found else None


def _object(value: Any) -> Mapping[str, Any] | None:
    value = parsed(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, Mapping) else None


def _user_names() -> frozenset[str]:
    return frozenset(field for fields in _user_fields().values() for field in fields)


def _scalar(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return loads(value)
    except ValueError:
        return value


def _events(value: Any, context: Context, answer: bool) -> str | None:
    """`value`: a conversation, of which what the model said last is the answer."""
    said = parsed(value)
    if not isinstance(said, list):
        return None
    last = len(said)
    while last and (said[last - 1].get("role") == "assistant" or said[last - 1].get("event.name") == "gen_ai.choice"):
        last -= 1
    role = "assistant" if answer else "user"
    return messages_json(said[last:] if answer else said[:last], role, context.limit)


def _retrieval(value: Any, _: Context) -> str | None:
    return "retrieval" if are_documents(value) else None


def _event_message(value: Any, _: Context) -> str | None:
    """`value`: the attributes of the events."""
    message = value[-1].get("exception.message")
    return message if isinstance(message, str) else None


_FLAG_VARIANT = ("feature_flag.result.variant", "feature_flag.variant", "feature_flag.result.value")


def _event_flags(value: Any, _: Context) -> str | None:
    """`value`: the attributes of the events."""
    flags = []
    for attributes in value:
        variant = next((attributes[key] for key in _FLAG_VARIANT if attributes.get(key) is not None), None)
        if attributes.get("feature_flag.key") is not None:
            flags.append({"key": attributes["feature_flag.key"], "variant": variant})
    return dump(flags) if flags else None


CONVERSIONS: Mapping[Conversion, Callable[[Any, Context], Any]] = {
    Conversion.TEXT: _text,
    Conversion.INTEGER: _integer,
    Conversion.NUMBER: _number,
    Conversion.MILLISECONDS: _milliseconds,
    Conversion.ISO_TIME: _iso_time,
    Conversion.EVENT_TIME: _event_time,
    Conversion.EVENT_FLAGS: _event_flags,
    Conversion.EVENT_ERROR: _event_error,
    Conversion.FIRST: _first,
    Conversion.HEAD: _head,
    Conversion.CLASS_NAME: _class_name,
    Conversion.MESSAGES_IN: lambda value, context: messages_json(value, "user", context.limit),
    Conversion.MESSAGES_OUT: lambda value, context: messages_json(value, "assistant", context.limit),
    Conversion.EVENTS_IN: lambda value, context: _events(value, context, answer=False),
    Conversion.EVENTS_OUT: lambda value, context: _events(value, context, answer=True),
    Conversion.DOCUMENTS: lambda value, _: documents_json(value),
    Conversion.JSON: _json,
    Conversion.FLAG: _flag,
    Conversion.QUOTED: _quoted,
    Conversion.TOOLS: lambda value, _: tools_json(value),
    Conversion.ARGUMENTS: _arguments,
    Conversion.CONTENT: _content,
    Conversion.TAGS: _tags,
    Conversion.METADATA: _metadata,
    Conversion.METADATA_JSON: _metadata_json,
    Conversion.DOCUMENTS_ONLY: lambda value, _: documents_json(value) if are_documents(value) else None,
    Conversion.RETRIEVAL: _retrieval,
    Conversion.EVENT_MESSAGE: _event_message,
    Conversion.HASH: lambda value, context: hashed(value, context.key),
}
