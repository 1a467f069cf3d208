"""OpenTelemetry's names as Prometheus has them.

As the specification "Prometheus and OpenMetrics Compatibility" says, and as Prometheus' own OTLP receiver does it:
units and `_total` become suffixes, other characters become underscores.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from collector.exposition.model import Labels
from collector.otlp.attributes import dump

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
        "ns": "nanoseconds",
        "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
        "KBy": "kilobytes", "kBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
        "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
        "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
    }
)  # fmt: skip
PER: Mapping[str, str] = MappingProxyType(
    {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
)
MAX_NAME = 200
_SEPARATORS = re.compile(r"[^a-zA-Z0-9:]+")
_INVALID = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=4096)
def metric_name(name: str, unit: str, kind: str) -> tuple[str, str]:
    """The name as exposed (a counter's ends in `_total`) and its unit, which is part of the name, or ''.

    `kind` is counter, gauge, histogram or summary.  The name is '' where nothing of it is left.

    >>> metric_name("http.server.duration", "ms", "histogram")
    ('http_server_duration_milliseconds', 'milliseconds')
    >>> metric_name("gen_ai.client.token.usage", "{token}", "histogram")
    ('gen_ai_client_token_usage', '')
    >>> metric_name("disk.io", "By/s", "counter")
    ('disk_io_bytes_per_second_total', 'bytes_per_second')
    """
    tokens = [token for token in _SEPARATORS.split(name) if token]
    if not tokens:
        return "", ""
    main, per = _unit(unit)
    suffix = []
    if kind == "gauge" and unit.strip() == "1":
        main = "ratio"
    if main:
        suffix.append(main)
    if per:
        suffix += ["per", per]
    if main and main not in tokens:
        tokens.append(main)
    if per and per not in tokens:
        tokens += ["per", per]
    if kind == "counter":
        tokens = [token for token in tokens if token != "total"]
    stem = "_".join(tokens)[:MAX_NAME]
    if not stem or stem[0].isdigit():
        stem = "_" + stem
    made_unit = "_".join(suffix)
    return stem + "_total" * (kind == "counter"), made_unit if stem.endswith("_" + made_unit) else ""


def _unit(unit: str) -> tuple[str, str]:
    main, _, per = unit.partition("/")
    return _word(main, UNITS), _word(per, PER)


def _word(unit: str, known: Mapping[str, str]) -> str:
    """The unit in words; annotations in braces are not part of it."""
    unit = unit.strip()
    if "{" in unit or "}" in unit:
        return ""
    found = known.get(unit)
    return "_".join(token for token in _SEPARATORS.split(unit) if token) if found is None else found


@lru_cache(maxsize=8192)
def label_name(key: str) -> str:
    """A label's name of an attribute's key.

    >>> label_name("http.status_code"), label_name("2xx"), label_name("__name__")
    ('http_status_code', 'key_2xx', 'key__name__')
    """
    made = _INVALID.sub("_", key)
    if not made or made[0].isdigit():
        return "key_" + made
    return "key" + made if made.startswith("_") else made


def labels_of(
    attributes: Iterable[tuple[str, Any]], reserved: Mapping[str, str], longest: int, special: frozenset[str]
) -> Labels:
    """Labels by name: the attributes' beside the `reserved` ones, which an attribute of that name must not replace.

    `special` names belong to the exposition (`le`).  Attributes whose names become the same share a label, their
    values joined with `;`.  Empty values are no labels.
    """
    found: dict[str, str] = {}
    for key, value in sorted(attributes, key=lambda item: item[0]):
        name = label_name(key)
        if name in reserved or name in special:
            name = "exported_" + name
        text = value_text(value)[:longest]
        found[name] = f"{found[name]};{text}"[:longest] if name in found else text
    found.update({name: value[:longest] for name, value in reserved.items()})
    return tuple(sorted((name, value) for name, value in found.items() if value))


def value_text(value: Any) -> str:
    """An attribute's value as a label's; lists and maps as JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return "" if value is None else dump(value)
