"""Times as people write them."""

import math
import re
from datetime import UTC, datetime

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_RELATIVE = re.compile(r"(?:now)?([+-])((?:\d+(?:\.\d+)?(?:ms|[smhdw]))+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# What a datetime can hold and a browser shows: the years 1970 to 9999.
LATEST = 253_402_300_799.0


class BadTime(ValueError):
    """A time or an interval that cannot be read."""


def duration(text: str) -> float:
    """Seconds of `5m`, `1h30m`, `250ms`.  Raises BadTime."""
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        raise BadTime(f"{text!r} is no interval; write 30s, 5m, 1h or 7d")
    seconds = sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= LATEST:
        raise BadTime(f"{text!r} is out of range")
    return seconds


def instant(text: str, now: float) -> float:
    """Unix seconds of an RFC 3339 time, `now`, a relative time (`-15m`, `now-1h`) or unix seconds.  Raises BadTime."""
    text = text.strip()
    if text == "now":
        return now
    # A plus sign that was not escaped arrives as a space.
    relative = _RELATIVE.fullmatch(text)
    if relative:
        offset = duration(relative[2])
        return _bounded(now + offset if relative[1] == "+" else now - offset, text)
    if _NUMBER.fullmatch(text):
        return _bounded(float(text), text)
    try:
        time = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
    except ValueError:
        raise BadTime(
            f"{text!r} is no time; write RFC 3339 (2026-01-31T12:00:00Z), unix seconds, now, or a relative time (-15m)"
        ) from None
    return _bounded((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp(), text)


def _bounded(seconds: float, text: str) -> float:
    if not math.isfinite(seconds) or not 0 <= seconds <= LATEST:
        raise BadTime(f"{text!r} is out of range")
    return seconds
