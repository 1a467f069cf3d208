"""Prometheus's groups of targets, as they stand in files and come by HTTP."""

from collections.abc import Iterator, Mapping
from typing import Any

from collector.discovery.found import Found, of_address, of_url

MAX_TARGETS = 10_000
_OURS = {"targets", "url", "labels"}


def founds_in(document: Any, source: str, meta: Mapping[str, str], *, checking: bool) -> list[Found]:
    """The targets of a list of groups (`targets` and `labels`), or of our own `url` and `labels`.

    With `checking` each has to be a target as it stands, without relabelling.  Raises ValueError saying which entry is
    wrong.
    """
    if document is None:
        return []
    if not isinstance(document, list):
        raise ValueError(f"holds a {type(document).__name__}; write a list of {{targets: [...], labels: {{...}}}}")
    found: list[Found] = []
    for position, group in enumerate(document):
        try:
            for one in _group(group, source, meta):
                if checking:
                    one.target(one.labels)
                found.append(one)
        except ValueError as error:
            raise ValueError(f"[{position}]: {error}") from None
        if len(found) > MAX_TARGETS:
            raise ValueError(f"more than {MAX_TARGETS} targets")
    return found


def _group(group: Any, source: str, meta: Mapping[str, str]) -> Iterator[Found]:
    if not isinstance(group, dict) or not ({"targets", "url"} & set(group)):
        raise ValueError("neither 'targets' nor 'url'; write {targets: ['gpu-7:8000'], labels: {environment: prod}}")
    if unknown := set(group) - _OURS:
        raise ValueError(f"unknown key {sorted(map(str, unknown))[0]!r}; there are targets, url, labels")
    given = group.get("labels") or {}
    addresses = group.get("targets", [group.get("url")])
    if not isinstance(given, dict) or not isinstance(addresses, list):
        raise ValueError("'labels' must be a mapping and 'targets' a list")
    labels = {**meta, **{str(name): str(value) for name, value in given.items()}}
    for address in addresses:
        if not isinstance(address, str) or not address:
            raise ValueError(f"{address!r} is no address; write 'gpu-7:8000'")
        by_url = "://" in address or "url" in group
        yield of_url(address, labels, source) if by_url else of_address(address, labels, source)
