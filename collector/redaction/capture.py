"""How much of the content of one row is kept: nothing, or hashes of it."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import orjson

from catalog.dialect import Place, sources

# Columns of any table that hold what was said.
CONTENT_COLUMNS = frozenset(
    "input_messages output_messages retrieved_documents response_schema tool_definitions tool_arguments tool_result "
    "body status_message explanation".split()
)
# Beyond what the catalogue knows: a longer text is taken for content.
LONGEST_LABEL = 200
# What a message or a document says about itself.
ABOUT = frozenset({"role", "type", "id", "name", "finish_reason", "score"})
WITHHELD = {"$withheld": True}


@cache
def _keys() -> frozenset[str]:
    return frozenset(
        source.key for source in sources() if source.column in CONTENT_COLUMNS and source.place is Place.ATTRIBUTE
    )


@cache
def _prefixes() -> tuple[str, ...]:
    return tuple(
        {source.key for source in sources() if source.column in CONTENT_COLUMNS and source.place is Place.FLATTENED}
    )


def is_content(key: str, value: Any) -> bool:
    """Whether an attribute holds what was said: by its name, or because it is too long for anything else."""
    if key in _keys() or key.startswith(_prefixes()):
        return True
    if isinstance(value, str):
        return len(value) > LONGEST_LABEL
    return isinstance(value, (list, Mapping)) and len(json.dumps(value)) > LONGEST_LABEL


def hashed_texts(value: Any, hashed: Callable[[str], str]) -> Any:
    """JSON data with each text in it as its length and hash; roles, types, ids and names stay."""
    if isinstance(value, str):
        return f"hash:{hashed(value)}:{len(value)}" if value else value
    if isinstance(value, list):
        return [hashed_texts(item, hashed) for item in value]
    if isinstance(value, Mapping):
        return {
            key: item if key in ABOUT and not isinstance(item, (list, Mapping)) else hashed_texts(item, hashed)
            for key, item in value.items()
        }
    return value


def column_without(name: str, text: str | None, hashed: Callable[[str], str] | None) -> str | None:
    """A content column's value under `hashed`, or under `off` where that is None."""
    if text is None or hashed is None:
        return None
    try:
        return orjson.dumps(hashed_texts(orjson.loads(text), hashed)).decode()
    except ValueError:
        return f"hash:{hashed(text)}:{len(text)}"


def attributes_without(text: str | None) -> str | None:
    """The JSON of `attributes` with what holds content replaced by `{"$withheld": true}`."""
    if text is None:
        return None
    try:
        document = orjson.loads(text)
    except ValueError:
        return orjson.dumps(WITHHELD).decode()
    return orjson.dumps(_without(document)).decode()


def _without(node: Any) -> Any:
    if isinstance(node, list):
        return [_without(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    kept = {}
    for key, value in node.items():
        # The parts of a span's rest are walked; what they hold is judged.
        if key in PARTS and isinstance(value, (list, Mapping)):
            kept[key] = _without(value)
        else:
            kept[key] = WITHHELD if is_content(key, value) else value
    return kept


PARTS = frozenset({"span", "log", "resource", "scope", "events", "links", "attributes", "$map"})
