"""What each engine calls the common families: `catalog/engines/*.toml` and the entry points `tidegauge.engines`.

docs/engines.md explains each key, with the trap that it is there for.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeVar

from catalog.family import Family, Kind, families

# Labels that every engine family gets from the target and the recognition, not from a series.
TARGET_LABELS = ("target", "engine")
NOTHING: Mapping[str, str] = MappingProxyType({})
_TYPES = ("counter", "gauge", "histogram", "summary", "info", "untyped")
T = TypeVar("T")


class EngineMappingError(ValueError):
    """A mapping names what does not exist or contradicts its family; the message lists every fault."""


@dataclass(frozen=True, slots=True)
class MapRule:
    """One native metric and the family that it feeds.

    `native` is the name as exposed (a counter's with `_total`, a histogram's without suffix); `*` matches any run.
    Rules of the same family and the same `set` are spellings of one thing: the first whose series are there wins,
    those without `until` before those with it; rules with `adds` are summed onto the winner instead.
    """

    native: str
    family: str
    since: str = ""
    until: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # native label -> ours, on top of the engine's
    set: Mapping[str, str] = field(default_factory=dict)  # constant labels
    where: Mapping[str, str] = field(default_factory=dict)  # native label -> value; `~` starts a regex, "" is absent
    multiply: float = 1.0
    divide: float = 1.0
    multiply_by: str = ""  # another native gauge of the same labels, for instance tokens per block
    divide_by: str = ""
    native_type: str = ""  # what the exposition says, if it says something wrong
    take: str = "all"  # of a histogram or summary: all, sum, count, sum_count (no buckets)
    part: str = "whole"  # what it fills of a histogram: whole, sum, count
    combine: str = "sum"  # when series fall together by dropped labels: sum, max, min
    adds: bool = False
    needs: tuple[str, ...] = ()  # native names without which the rule does not apply
    absent_when: float | None = None  # the engine's way to say nothing, such as -1
    why: str = ""

    @property
    def kind(self) -> Kind:
        """The family's."""
        return families()[self.family].kind

    @property
    def exposed_type(self) -> str:
        """The TYPE that the exposition must give."""
        if self.native_type:
            return self.native_type
        return "histogram" if self.take != "all" else str(self.kind)


@dataclass(frozen=True, slots=True)
class Never:
    """A native metric that looks useful and must not be mapped, and why."""

    native: str
    why: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """Another prefix under which the same metrics are served, for instance by Ray."""

    prefix: str
    stands_for: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 200 that tells what to do: its status, a part of its body, and the hint."""

    status: int
    contains: str
    hint: str


@dataclass(frozen=True, slots=True)
class EngineMapping:
    """How one engine is recognised and what its metrics mean.

    `signature` holds prefixes of names that give the engine away.  With `hint_only` the names are too common to tell:
    the target's label `engine` must name it.
    """

    name: str
    title: str
    signature: tuple[str, ...]
    labels: Mapping[str, str]
    rules: tuple[MapRule, ...]
    hint_only: bool = False
    process_start: str = ""  # native gauge with the time at which the process started: a change is a restart
    metrics_path: str = "/metrics"
    never: tuple[Never, ...] = ()
    spellings: tuple[Spelling, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def canonical(self, native: str) -> str:
        """`native` without another system's prefix."""
        for spelling in self.spellings:
            if native.startswith(spelling.prefix):
                return spelling.stands_for + native[len(spelling.prefix) :]
        return native

    def recognises(self, names: Iterable[str]) -> int:
        """How many of the names give this engine away."""
        prefixes = self.signature + tuple(spelling.prefix for spelling in self.spellings)
        return sum(name.startswith(prefixes) for name in names)


def _made(cls: type[T], entry: Mapping[str, Any], where: str, faults: list[str]) -> T | None:
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(entry) - known):
        faults.append(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(sorted(known))}")
        return None
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    try:
        return cls(**values)
    except TypeError as error:
        faults.append(f"{where}: {str(error).split(') ', 1)[-1]}")
        return None


def _rule_faults(rule: MapRule, engine_labels: Mapping[str, str], catalog: Mapping[str, Family]) -> list[str]:
    family = catalog.get(rule.family)
    if family is None:
        return [f"no family {rule.family!r} is declared in catalog/families"]
    faults = []
    has = {*TARGET_LABELS, "model", *rule.labels.values(), *rule.set}
    if extra := has - {*family.labels, *family.optional_labels}:
        faults.append(f"{family.name} has no label {sorted(extra)[0]!r}")
    if missing := set(family.labels) - has - set(engine_labels.values()):
        faults.append(f"{family.name} needs the label {sorted(missing)[0]!r}; give it by `labels` or `set`")
    if rule.native_type and rule.native_type not in _TYPES:
        faults.append(f"native_type {rule.native_type!r} is none of {', '.join(_TYPES)}")
    if rule.take not in ("all", "sum", "count", "sum_count"):
        faults.append(f"take {rule.take!r} is none of all, sum, count, sum_count")
    if rule.part not in ("whole", "sum", "count"):
        faults.append(f"part {rule.part!r} is none of whole, sum, count")
    if rule.combine not in ("sum", "max", "min"):
        faults.append(f"combine {rule.combine!r} is none of sum, max, min")
    if rule.divide == 0 or rule.multiply == 0:
        faults.append("multiply and divide must not be 0")
    for pattern in (value[1:] for value in rule.where.values() if value.startswith("~")):
        try:
            re.compile(pattern)
        except re.error as error:
            faults.append(f"where: {pattern!r} is no regular expression: {error}")
    return faults + _shape_faults(rule, family)


def _shape_faults(rule: MapRule, family: Family) -> list[str]:
    """Whether what is taken has the shape of the family."""
    histogram = family.kind is Kind.HISTOGRAM
    if rule.part != "whole" and not histogram:
        return [f"part {rule.part!r} needs a histogram, and {family.name} is a {family.kind}"]
    if histogram and rule.part == "whole":
        if rule.take in ("sum", "count"):
            return [f"take {rule.take!r} gives one number, and {family.name} is a histogram"]
        if rule.exposed_type == "summary" and rule.take != "sum_count":
            return ['a summary\'s quantiles cannot be aggregated; write take = "sum_count"']
        if rule.exposed_type not in ("histogram", "summary"):
            return [f"{family.name} is a histogram and {rule.native} a {rule.exposed_type}"]
    elif rule.take == "sum_count" or (rule.take == "all" and rule.native_type in ("histogram", "summary")):
        return [f'{family.name} is a {family.kind}; write take = "sum" or "count"']
    return []


def parse_engine(text: str, where: str) -> EngineMapping:
    """The mapping written in `text` (TOML); `where` names it in errors.  Raises EngineMappingError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EngineMappingError(f"{where}: {error}") from None
    faults: list[str] = []
    labels: Mapping[str, str] = document.pop("labels", {})
    rules: list[MapRule] = []
    for position, entry in enumerate(document.pop("map", [])):
        place = f"{where}: map[{position}] ({entry.get('native', '?')})"
        rule = _made(MapRule, entry, place, faults)
        if rule is not None:
            rules.append(rule)
            faults += [f"{place}: {fault}" for fault in _rule_faults(rule, labels, families())]
    lists = {
        key: tuple(_made(cls, item, f"{where}: {key}", faults) for item in document.pop(word, []))
        for key, word, cls in (
            ("never", "never", Never),
            ("spellings", "spelling", Spelling),
            ("refusals", "refusal", Refusal),
        )
    }
    entry = {**document, "labels": labels, "rules": tuple(rules), **lists}
    mapping = _made(EngineMapping, entry, where, faults)
    if mapping is not None:
        forbidden = {item.native for item in mapping.never if item is not None}
        faults += [
            f"{where}: {rule.native} is both mapped and never to be" for rule in rules if rule.native in forbidden
        ]
        if not mapping.signature and not mapping.hint_only:
            faults.append(f"{where}: no signature; give one, or hint_only = true")
    if faults or mapping is None:
        raise EngineMappingError("\n".join(faults))
    return mapping


@cache
def engines() -> Mapping[str, EngineMapping]:
    """Every known engine by name: the shipped ones and those of the entry points `tidegauge.engines`.

    An entry point is a str of TOML, or a function that returns one.
    """
    found: dict[str, EngineMapping] = {}
    for path in sorted(files("catalog").joinpath("engines").iterdir(), key=lambda item: item.name):
        if path.name.endswith(".toml"):
            mapping = parse_engine(path.read_text(), path.name)
            found[mapping.name] = mapping
    for point in entry_points(group="tidegauge.engines"):
        loaded = point.load()
        mapping = parse_engine(loaded() if callable(loaded) else loaded, f"entry point {point.name}")
        found[mapping.name] = mapping
    return MappingProxyType(found)
