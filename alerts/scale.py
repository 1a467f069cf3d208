"""Durations and thresholds in the text of rules: `{2m}`, `{24h in seconds}`, `{queue_seconds}`, `{queue_seconds*2}`.

Rules write every duration so, because a test shortens all of them by one setting.
"""

import re

from alerts.settings import AlertSettings, Thresholds
from catalog.duration import seconds

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_PLACEHOLDER = re.compile(
    r"\{(?:(?P<duration>\d+(?:ms|s|m|h|d))(?P<number> in seconds)?|(?P<name>[a-z_]+)(?:\*(?P<factor>[0-9.]+))?)\}"
)

SHORTEST_WINDOW_SECONDS = 1.0


class UnknownPlaceholderError(ValueError):
    """A rule names a threshold that does not exist."""


def duration_text(length_seconds: float) -> str:
    """A Prometheus duration of one unit, to the millisecond.

    >>> duration_text(90), duration_text(7200), duration_text(1.5)
    ('90s', '2h', '1500ms')
    """
    milliseconds = round(length_seconds * 1000)
    if milliseconds == 0:
        return "0s"
    unit, size = next((unit, size) for unit, size in _UNITS if milliseconds % size == 0)
    return f"{milliseconds // size}{unit}"


def window(duration: str, settings: AlertSettings) -> str:
    """A window or `for:` under the settings' time scale; zero stays zero, nothing else falls below one second."""
    length = seconds(duration)
    return duration_text(max(length * settings.time_scale, SHORTEST_WINDOW_SECONDS) if length else 0.0)


def moment(duration: str, settings: AlertSettings) -> str:
    """A time in a rule's test cases under the settings' time scale, exact."""
    return duration_text(seconds(duration) * settings.time_scale)


def fill(text: str, settings: AlertSettings) -> str:
    """`text` with durations scaled and thresholds filled in."""

    def replace(match: re.Match[str]) -> str:
        if match["duration"]:
            scaled = window(match["duration"], settings)
            return f"{seconds(scaled):g}" if match["number"] else scaled
        if match["name"] not in Thresholds.model_fields:
            raise UnknownPlaceholderError(
                f"{match[0]} names no threshold; there are {', '.join(Thresholds.model_fields)}"
            )
        return f"{getattr(settings.thresholds, match['name']) * float(match['factor'] or 1):.12g}"

    return _PLACEHOLDER.sub(replace, text)
