"""JSON answers: RFC 3339 times, and never NaN or an infinity, which JSON does not have."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi.responses import Response


def rfc3339(time: datetime) -> str:
    """`2026-01-31T12:00:00.123456Z`."""
    text = time.astimezone(UTC).isoformat()
    return text.removesuffix("+00:00") + "Z"


def plain(value: Any) -> Any:
    """`value` as what JSON can say; what is no number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def dumps(value: Any) -> bytes:
    """UTF-8 JSON; text that UTF-8 cannot hold is replaced."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        # What orjson refuses: text that UTF-8 cannot hold, numbers beyond 64 bits.
        return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    found = plain(value)
    return str(value) if found is value else found


class Answer(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return dumps(content)
