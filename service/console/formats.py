"""Numbers, times and messages as people read them, with their units."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

NOTHING = "–"
MAX_TEXT = 20_000


def seconds(value: Any) -> str:
    """`850 ms`, `31.2 s`, `4 min 03 s`, `2 h 05 min`."""
    if not _number(value):
        return NOTHING
    size = abs(value)
    if size < 0.0995:
        return f"{value * 1000:.1f} ms" if size < 0.00995 else f"{value * 1000:.0f} ms"
    if size < 0.9995:
        return f"{value * 1000:.0f} ms"
    if size < 59.95:
        return f"{value:.2f} s" if size < 9.995 else f"{value:.1f} s"
    whole = round(size)
    sign = "-" if value < 0 else ""
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{sign}{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{sign}{whole // 86400} d {whole % 86400 // 3600} h"


def count(value: Any) -> str:
    """`12,345`."""
    return f"{value:,.0f}" if _number(value) else NOTHING


def number(value: Any) -> str:
    """Three significant digits, or all of a larger whole part."""
    if not _number(value):
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: Any) -> str:
    """A ratio as `42.0 %`."""
    return f"{value * 100:.1f} %" if _number(value) else NOTHING


def chance(value: Any) -> str:
    """A p-value: `0.031`, `4 · 10⁻⁹`."""
    if not _number(value):
        return NOTHING
    if value == 0 or value >= 0.001:
        return f"{value:.3f}" if value else "0"
    exponent = math.floor(math.log10(value))
    digits = str(-exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value / 10**exponent:.1f} · 10⁻{digits}"


def clock(value: Any) -> str:
    """`2026-11-23 20:33:51 UTC`."""
    time = _time(value)
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else NOTHING


def short_clock(value: Any) -> str:
    """`20:33:51`; UTC, which the column's head says."""
    time = _time(value)
    return f"{time:%H:%M:%S}" if time else NOTHING


def ago(value: Any, now: float) -> str:
    """`2 min ago`."""
    time = _time(value)
    if time is None:
        return "never"
    passed = now - time.timestamp()
    if abs(passed) < 1:
        return "now"
    size = abs(passed)
    for width, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if size >= width:
            text = f"{size / width:.0f} {unit}"
            return f"{text} ago" if passed > 0 else f"in {text}"
    return "now"


def safe_url(value: Any) -> str | None:
    """The text if it is a web address that a page may link to."""
    if not isinstance(value, str):
        return None
    try:
        return value if urlsplit(value).scheme in ("http", "https") else None
    except ValueError:
        return None


def pretty(value: Any) -> str:
    """Indented JSON, cut at a length."""
    return cut(json.dumps(value, indent=2, ensure_ascii=False, default=str, sort_keys=True))


def cut(text: str) -> str:
    """The text, or its beginning and how much is missing."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}\n… {len(text) - MAX_TEXT:,} characters more; GET /api/v1/requests has them"


def chat(messages: Any) -> list[dict[str, str]]:
    """Messages as `role`, `kind` (text or another part's type) and `text`; anything odd is shown as JSON."""
    if messages is None:
        return []
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return [{"role": "", "kind": "json", "text": cut(messages) if isinstance(messages, str) else pretty(messages)}]
    return [block for message in messages for block in _blocks(message)]


def _blocks(message: Any) -> list[dict[str, str]]:
    if not isinstance(message, dict):
        return [{"role": "", "kind": "json", "text": pretty(message)}]
    role = str(message.get("role", ""))
    parts = message.get("parts")
    if not isinstance(parts, list):
        content = message.get("content")
        parts = [{"type": "text", "content": content}] if isinstance(content, str) else [message]
    return [_block(role, part) for part in parts]


def _block(role: str, part: Any) -> dict[str, str]:
    if isinstance(part, dict) and part.get("type") in ("text", "reasoning") and isinstance(part.get("content"), str):
        return {"role": role, "kind": part["type"], "text": cut(part["content"])}
    kind = str(part.get("type", "json")) if isinstance(part, dict) else "json"
    return {"role": role, "kind": kind, "text": pretty(part)}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            return None
    return datetime.fromtimestamp(value, UTC) if _number(value) and value >= 0 else None
