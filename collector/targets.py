"""What is scraped: one target, and what it may be called."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit, urlunsplit

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# Ours on the served series.
_RESERVED = ("target", "vantage", "le", "rank")
MAX_LABELS = 32
MAX_LABEL_VALUE = 256


@dataclass(frozen=True, slots=True)
class Target:
    """Something that serves metrics; made by `checked`."""

    url: str = field(repr=False)  # may hold user and password
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    token: str = field(default="", repr=False)  # sent as `Authorization: Bearer`
    source: str = field(default="", compare=False)  # where it was found: static, or one of those that discover
    name: str = field(init=False, compare=False)  # the label `instance`, else host and port of the URL
    shown_url: str = field(init=False, compare=False)  # without user, password and query, fit for labels and logs

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        object.__setattr__(self, "name", self.labels.get("instance") or place)
        object.__setattr__(self, "shown_url", urlunsplit((parts.scheme, place, parts.path, "", "")))


def checked(url: str, labels: Mapping[str, str] | None = None, token: str = "", source: str = "static") -> Target:
    """A target with the path /metrics where the URL has none.  Raises ValueError with what to write instead."""
    labels = dict(labels or {})
    if "://" not in url:
        rest = url if "/" in url else f"{url}/metrics"
        raise ValueError(f"{url!r} has no scheme; write 'http://{rest}'")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r}: the scheme {parts.scheme!r} cannot be scraped; write http or https")
    if not host:
        raise ValueError(f"{url!r} has no host; write for example 'http://gpu-7:8000/metrics'")
    if len(labels) > MAX_LABELS:
        raise ValueError(f"{len(labels)} labels; at most {MAX_LABELS}")
    for name, value in labels.items():
        if _LABEL_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no label name; letters, digits and _ only")
        if name in _RESERVED:
            raise ValueError(f"the label {name!r} is Tidegauge's own; choose another name")
        if len(value) > MAX_LABEL_VALUE:
            raise ValueError(f"label {name!r}: {len(value)} characters; at most {MAX_LABEL_VALUE}")
    path = parts.path if parts.path not in ("", "/") else "/metrics"
    whole = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    return Target(whole, MappingProxyType(labels), token, source)


def clashes(targets: Iterable[Target]) -> list[str]:
    """One line for each pair of targets that share a name; an empty list if there are none."""
    seen: dict[str, Target] = {}
    faults = []
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target:
            faults.append(
                f"{other.shown_url!r} and {target.shown_url!r} are both called {target.name!r}; "
                "give one of them another label 'instance'"
            )
    return faults
