"""Metric families: what Tidegauge serves on `/metrics`, declared in `catalog/families/*.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any


class Kind(StrEnum):
    """Prometheus metric types that a family can have."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Origin(StrEnum):
    """Where the values of a family come from."""

    ENGINE = "engine"  # re-served from an engine's own /metrics
    GPU = "gpu"  # NVML or DCGM
    TRACES = "traces"  # derived from the requests that OTLP brought
    STORE = "store"  # scores and drift, read from the store
    SELF = "self"  # what the service knows about itself


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    `name` is the name as exposed: a counter's ends in `_total`, a histogram's has no suffix.  `unit` is the base
    unit (`seconds`, `bytes`, `ratio`, `tokens`, ...) or empty.  `state` names the column of `engine_state` or
    `gpu_state` that keeps the family's value, where one does (a histogram's is the stem of `_sum` and `_count`).
    `optional_labels` are there only where the source tells them apart.  `values` lists the values that a label can
    take, where they are known before the first event.  `buckets` are upper bounds, without +Inf.  Families that name
    the same `ledger` are moved and read together, so that their sums agree in every scrape.
    """

    name: str
    kind: Kind
    origin: Origin
    unit: str
    labels: tuple[str, ...]
    help: str
    optional_labels: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    buckets: tuple[float, ...] = ()
    state: str = ""
    ledger: str = ""

    def exposed(self) -> frozenset[str]:
        """Sample names under which the family appears in the exposition."""
        if self.kind is Kind.HISTOGRAM:
            return frozenset(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return frozenset({self.name})


def _family(entry: Mapping[str, Any], origin: str) -> Family:
    values = dict(entry)
    values["kind"] = Kind(values["kind"])
    values["origin"] = Origin(values.get("origin", origin))
    for key in ("labels", "optional_labels", "buckets"):
        values[key] = tuple(values.get(key, ()))
    values["values"] = {label: tuple(known) for label, known in values.get("values", {}).items()}
    values.setdefault("unit", "")
    return Family(**values)


@cache
def families() -> Mapping[str, Family]:
    """All declared families by name, in the order of declaration."""
    found: dict[str, Family] = {}
    for path in sorted(files("catalog").joinpath("families").iterdir(), key=lambda item: item.name):
        if not path.name.endswith(".toml"):
            continue
        document = tomllib.loads(path.read_text())
        for entry in document["family"]:
            family = _family(entry, document["origin"])
            if family.name in found:
                raise ValueError(f"{path.name}: {family.name} is declared twice")
            found[family.name] = family
    return MappingProxyType(found)


@cache
def family_of_sample() -> Mapping[str, Family]:
    """The family that each exposed sample name belongs to; raises ValueError where two claim one."""
    found: dict[str, Family] = {}
    for family in families().values():
        for name in family.exposed():
            if name in found:
                raise ValueError(f"{family.name} and {found[name].name} both expose {name}")
            found[name] = family
    return MappingProxyType(found)
