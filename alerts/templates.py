"""The part of Prometheus' template language that our annotations use, so that a backtest can show them.

The generated promtool tests expect what this renders; so real Prometheus checks it, function by function.
"""

import math
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

NOW = '{{ with query "time()" }}{{ . | first | value | printf "%.0f" }}{{ end }}'
"""Unix time of the evaluation; Prometheus templates have no function for it, but a query."""

_ACTION = re.compile(
    r"\{\{ (?P<operand>\$value|\$labels\.(?P<label>[a-zA-Z_][a-zA-Z0-9_]*))(?: \| (?P<function>[^{}]+))? \}\}"
)


class UnsupportedTemplateError(ValueError):
    """An annotation uses a part of the template language that is not rendered here."""


def render(template: str, labels: Mapping[str, str], value: float | None, at: float) -> str:
    """The text that Prometheus makes of an annotation for an alert with these labels, value and time."""

    def replace(match: re.Match[str]) -> str:
        function = match["function"]
        if match["label"] is not None:
            text = labels.get(match["label"], "")
            return text if function is None else _lookup(_ON_TEXT, function, template)(text)
        if value is None:
            raise UnsupportedTemplateError(f"{template!r} shows a value, and there is none")
        return _lookup(_ON_NUMBERS, function or "", template)(value)

    known = template.replace(NOW, f"{at:.0f}")
    if "{{" in _ACTION.sub("", known):
        raise UnsupportedTemplateError(f"{template!r} has an action that is not rendered here")
    return _ACTION.sub(replace, known)


def _lookup(functions: Mapping[str, Callable[..., str]], name: str, template: str) -> Callable[..., str]:
    if name not in functions:
        raise UnsupportedTemplateError(f"{template!r}: {name!r} is none of {', '.join(sorted(functions))}")
    return functions[name]


def _four_digits(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.4g}"


def _scaled(value: float, base: float, larger: tuple[str, ...], smaller: tuple[str, ...]) -> str:
    prefix = ""
    if abs(value) >= 1:
        for candidate in larger:
            if abs(value) < base:
                break
            prefix, value = candidate, value / base
    else:
        for candidate in smaller:
            if abs(value) >= 1:
                break
            prefix, value = candidate, value * base
    return _four_digits(value) + prefix


def humanize(value: float) -> str:
    """With a metric prefix, to four digits."""
    if value == 0 or not math.isfinite(value):
        return _four_digits(value)
    return _scaled(value, 1000, ("k", "M", "G", "T", "P"), ("m", "u", "n", "p"))


def humanize_1024(value: float) -> str:
    """With a binary prefix, to four digits."""
    if abs(value) <= 1 or not math.isfinite(value):
        return _four_digits(value)
    return _scaled(value, 1024, ("ki", "Mi", "Gi", "Ti", "Pi"), ())


def humanize_duration(value: float) -> str:
    """Seconds as days, hours, minutes and seconds."""
    if not math.isfinite(value):
        return _four_digits(value)
    if abs(value) < 60:
        return (_scaled(value, 1000, (), ("m", "u", "n")) if value else "0") + "s"
    whole = int(abs(value))
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return ("-" if value < 0 else "") + " ".join(f"{amount}{unit}" for amount, unit in parts[first:])


_ON_TEXT: dict[str, Callable[[str], str]] = {"urlquery": lambda text: quote_plus(text, safe="")}
_ON_NUMBERS: dict[str, Callable[[float], str]] = {
    "humanize": humanize,
    "humanize1024": humanize_1024,
    "humanizeDuration": humanize_duration,
    "humanizePercentage": lambda value: _four_digits(value * 100) + "%",
    'printf "%.0f"': lambda value: f"{value:.0f}",
    'printf "%.2f"': lambda value: f"{value:.2f}",
}
