"""Durations as people write them in configuration: `5s`, `1m30s`, `250ms`, or a number of seconds."""

import re
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def seconds(value: object) -> float:
    """Seconds of a duration; raises ValueError with an example.

    >>> seconds("1m30s"), seconds(5), seconds("250ms")
    (90.0, 5.0, 0.25)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(rf"(?:{_PART.pattern})+", text):
        return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in _PART.finditer(text))
    raise ValueError(f"{text!r} is no duration; write '1s', '500ms' or '5m'")


def spelled(value: float) -> str:
    """The shortest spelling of seconds, to the millisecond, as `seconds` reads it.

    >>> spelled(5400.0)
    '1h30m'
    """
    milliseconds, text = round(value * 1000), ""
    for unit in ("d", "h", "m", "s", "ms"):
        whole, milliseconds = divmod(milliseconds, round(_UNITS[unit] * 1000))
        text += f"{whole}{unit}" if whole else ""
    return text or "0s"


Duration = Annotated[float, BeforeValidator(seconds)]
