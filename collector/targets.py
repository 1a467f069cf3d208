"""What is scraped: a static list and Prometheus's `file_sd` files."""

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from catalog.instruments import Instruments

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# Ours on the served series.
_RESERVED = ("target", "vantage", "le", "rank")
MAX_LABELS = 32
MAX_LABEL_VALUE = 256
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_TARGETS_PER_FILE = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """Something that serves metrics; made by `checked`."""

    url: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    token: str = field(default="", repr=False)  # sent as `Authorization: Bearer`
    name: str = field(init=False, compare=False)  # the label `instance`, else host and port of the URL
    shown_url: str = field(init=False, compare=False)  # without user, password and query, fit for labels and logs

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        object.__setattr__(self, "name", self.labels.get("instance") or place)
        object.__setattr__(self, "shown_url", urlunsplit((parts.scheme, place, parts.path, "", "")))


def checked(url: str, labels: Mapping[str, str] | None = None, token: str = "") -> Target:
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
    return Target(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), MappingProxyType(labels), token)


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


def targets_in(text: str, *, is_json: bool) -> list[Target]:
    """The targets of a `file_sd` file: Prometheus's groups of `targets` and `labels`, or our own `url` and `labels`.

    Raises ValueError saying which entry is wrong.  No text at all is an error: a file that is being written, or torn,
    looks like that, and must not end every scrape; `[]` says that there are no targets.
    """
    if not text.strip():
        raise ValueError("empty: being written, or torn; write [] to say that there are no targets")
    try:
        document = json.loads(text) if is_json else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return []
    if not isinstance(document, list):
        raise ValueError(f"holds a {type(document).__name__}; write a list of {{targets: [...], labels: {{...}}}}")
    found: list[Target] = []
    for position, group in enumerate(document):
        try:
            found += _group(group)
        except ValueError as error:
            raise ValueError(f"[{position}]: {error}") from None
        if len(found) > MAX_TARGETS_PER_FILE:
            raise ValueError(f"more than {MAX_TARGETS_PER_FILE} targets")
    return found


def _group(group: Any) -> Iterator[Target]:
    if not isinstance(group, dict) or not ({"targets", "url"} & set(group)):
        raise ValueError("neither 'targets' nor 'url'; write {targets: ['gpu-7:8000'], labels: {environment: prod}}")
    if unknown := set(group) - {"targets", "url", "labels"}:
        raise ValueError(f"unknown key {sorted(map(str, unknown))[0]!r}; there are targets, url, labels")
    given = group.get("labels") or {}
    urls = group.get("targets", [group.get("url")])
    if not isinstance(given, dict) or not isinstance(urls, list):
        raise ValueError("'labels' must be a mapping and 'targets' a list")
    labels = {str(name): str(value) for name, value in given.items()}
    path = labels.pop("__metrics_path__", "/metrics")
    scheme = labels.pop("__scheme__", "http")
    labels = {name: value for name, value in labels.items() if not name.startswith("__")}
    for url in urls:
        if not isinstance(url, str) or not url:
            raise ValueError(f"{url!r} is no address; write 'gpu-7:8000'")
        yield checked(url if "://" in url or "url" in group else f"{scheme}://{url}{path}", labels)


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int] = (0, 0)
    targets: list[Target] = field(default_factory=list)
    error: str = ""


class TargetList:
    """The targets of now.  A broken file keeps its last good version, is counted and reported in `errors`.

    Static targets win over files, and an earlier file over a later one, if two targets share a name.
    """

    def __init__(self, static: Iterable[Target], patterns: Sequence[str], metrics: Instruments) -> None:
        self._static = list(static)
        self._patterns = tuple(patterns)
        self._files: dict[str, _File] = {}
        self._metrics = metrics
        self._clashes: list[str] = []
        if faults := clashes(self._static):
            raise ValueError("; ".join(faults))

    @property
    def errors(self) -> list[str]:
        """What is wrong with the files now, one line each; empty if nothing is."""
        return [f"{path}: {file.error}" for path, file in self._files.items() if file.error] + self._clashes

    def refresh(self) -> list[Target]:
        """Reads the files that have changed; all targets in the order of their listing.  Blocks on the disk."""
        paths = sorted({path for pattern in self._patterns for path in glob.glob(pattern)})
        self._files = {path: self._files.get(path) or _File() for path in paths}
        for path, file in self._files.items():
            self._reload(path, file)
        named = {target.name: target for target in self._static}
        static = len(named)
        self._clashes = []
        for path, file in self._files.items():
            for target in file.targets:
                other = named.setdefault(target.name, target)
                if other is not target and other != target:
                    self._clashes.append(f"{path}: left out: " + clashes([other, target])[0])
        gauge = self._metrics.gauges.tidegauge_targets
        gauge.labels(source="static").set(static)
        gauge.labels(source="file_sd").set(len(named) - static)
        return list(named.values())

    def _reload(self, path: str, file: _File) -> None:
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == file.stamp:
                return
            if status.st_size > MAX_FILE_BYTES:
                raise ValueError(f"{status.st_size} bytes; at most {MAX_FILE_BYTES}")
            with open(path, encoding="utf-8") as source:
                found = targets_in(source.read(), is_json=path.endswith(".json"))
            if faults := clashes(found):
                raise ValueError("; ".join(faults))
        except (OSError, ValueError) as error:
            kept = f"; its last good version ({len(file.targets)} targets) stays in use" if file.targets else ""
            file.error = f"{error}{kept}"
            self._metrics.counters.tidegauge_file_sd_errors_total.inc()
        else:
            file.stamp, file.targets, file.error = stamp, found, ""
