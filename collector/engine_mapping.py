"""From an engine's series to the common families: planned once per layout, then only values are copied."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from threading import Lock
from weakref import WeakKeyDictionary

from prometheus_client.utils import floatToGoString

from catalog.engine import EngineMapping, MapRule, engines
from catalog.family import Family, Kind, families
from collector.exposition.model import Labels, Layout, Scrape
from collector.exposition.writer import sample_suffix_rank
from collector.mapped import Computed, Mapped, MappedSeries, Plan, Source, mapped_series
from collector.targets import Target

UNKNOWN = "unknown"
_COMBINE: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
MAX_LABEL_VALUE = 256
Said = tuple[str | None, str | None]  # the target's labels engine and model: all of it that a plan depends on


class PlanCache:
    """The plans of layouts, so that targets which serve the same share one; a layout that is gone takes its along.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._plans: WeakKeyDictionary[Layout, dict[Said, Plan]] = WeakKeyDictionary()
        self._lock = Lock()

    def plan(self, layout: Layout, target: Target) -> Plan:
        """The plan for what a target serves."""
        said = (target.labels.get("engine"), target.labels.get("model"))
        with self._lock:
            plan = self._plans.get(layout, {}).get(said)
        if plan is None:
            plan = planned(layout, target)
            with self._lock:
                plan = self._plans.setdefault(layout, {}).setdefault(said, plan)
        return plan


class EngineMapper:
    """Maps the scrapes of one target.  Not thread-safe."""

    def __init__(self, target: Target, plans: PlanCache | None = None) -> None:
        self._target = target
        self._plans = plans or PlanCache()
        self._layout: Layout | None = None
        self._plan = Plan(UNKNOWN, (), ())

    def map(self, scrape: Scrape, at: float) -> Mapped:
        """The scrape in common families."""
        if scrape.layout is not self._layout:
            self._plan = self._plans.plan(scrape.layout, self._target)
            self._layout = scrape.layout
        start = self._plan.start
        started = None if start is None else scrape.values[start]
        exemplars = self._plan.exemplars(scrape) if scrape.exemplars else {}
        return Mapped(self._target, at, self._plan, self._plan.values(scrape.values), started, exemplars)


def recognised(layout: Layout, target: Target) -> tuple[EngineMapping | None, str]:
    """The engine that the target's label `engine` names, else the one whose names are there; and why there is none."""
    hint = target.labels.get("engine")
    if hint is not None:
        mapping = engines().get(hint)
        return mapping, "" if mapping else f"the label engine says {hint!r}; known are {', '.join(engines())}"
    names = set(layout.names())
    scored = [(mapping.recognises(names), mapping) for mapping in engines().values() if not mapping.hint_only]
    best, mapping = max(scored, key=lambda pair: pair[0], default=(0, None))
    if best:
        return mapping, ""
    seen = ", ".join(sorted(names)[:3]) or "nothing"
    known = ", ".join(engine.title for engine in engines().values())
    return None, f"serves {seen}, which no known engine does ({known}); the label 'engine' can name one"


def planned(layout: Layout, target: Target) -> Plan:
    """The plan for a layout."""
    mapping, reason = recognised(layout, target)
    if mapping is None:
        return Plan(_clipped(target.labels.get("engine", UNKNOWN)), (), (), reason)
    return _Planner(layout, target, mapping).plan()


def _clipped(value: str) -> str:
    return value if len(value) <= MAX_LABEL_VALUE else value[:MAX_LABEL_VALUE]


@dataclass(slots=True)
class _Output:
    rule: MapRule
    sources: list[Source] = field(default_factory=list)


Key = tuple[str, str, Labels]  # family, sample name, labels


class _Planner:
    """One layout of one target under one engine's mapping."""

    def __init__(self, layout: Layout, target: Target, mapping: EngineMapping) -> None:
        self._layout = layout
        self._target = target
        self._mapping = mapping
        self._by_name: dict[str, list[int]] = {}
        for position, name in enumerate(layout.names()):
            self._by_name.setdefault(mapping.canonical(name), []).append(position)
        self._known_labels: dict[int, Labels] = {}
        self._single: dict[str, list[int]] = {}
        self._types: dict[str, str] = {mapping.canonical(name): kind for name, kind in layout.metadata.types.items()}
        self._models = self._served_models()
        self._faults: list[str] = []

    def plan(self) -> Plan:
        outputs: dict[Key, _Output] = {}
        taken: set[tuple[str, tuple[tuple[str, str], ...], str]] = set()
        # Current spellings before deprecated ones, then what is added onto either.
        for rule in sorted(self._mapping.rules, key=lambda rule: (rule.adds, bool(rule.until))):
            thing = (rule.family, tuple(sorted(rule.set.items())), rule.part)
            if thing in taken and not rule.adds:
                continue
            found = [item for native in self._natives(rule) for item in self._outputs_of(rule, native)]
            for key, source in found:
                outputs.setdefault(key, _Output(rule)).sources.append(source)
            if found:
                taken.add(thing)
        return self._assembled(self._completed(outputs))

    def _served_models(self) -> tuple[str, ...]:
        """The values of the engine's own model label, in the order of their appearance."""
        native = next((key for key, ours in self._mapping.labels.items() if ours == "model"), None)
        values = dict.fromkeys(
            dict(self._labels_at(position)).get(native or "", "")
            for name, positions in self._by_name.items()
            if name.startswith(self._mapping.signature)
            for position in positions
        )
        return tuple(_clipped(value) for value in values if value)

    def _fallback_model(self) -> str:
        """For series without a model: what the configuration says, else the only one served, else unknown."""
        given = self._target.labels.get("model")
        return given or (self._models[0] if len(self._models) == 1 else UNKNOWN)

    def _natives(self, rule: MapRule) -> list[str]:
        """The native names that the rule is about, if what it needs is there."""
        if any(not self._positions(name) for name in rule.needs):
            return []
        if "*" not in rule.native:
            return [rule.native]
        pattern = _wildcard(rule.native)
        return sorted({match.group(1) for name in self._by_name if (match := pattern.fullmatch(name))})

    def _positions(self, name: str) -> list[int]:
        # OpenMetrics adds `_total` to counters that have none in the old text.
        return self._of_name(name) or self._of_name(f"{name}_total")

    def _of_name(self, name: str) -> list[int]:
        """Positions of a name; of a series that is there twice the first counts, however its labels are spelled."""
        if name not in self._single:
            first: dict[Labels, int] = {}
            for position in self._by_name.get(name, []):
                first.setdefault(self._labels_at(position), position)
            self._single[name] = list(first.values())
        return self._single[name]

    def _labels_at(self, position: int) -> Labels:
        if position not in self._known_labels:
            self._known_labels[position] = self._layout.labels(position)
        return self._known_labels[position]

    def _outputs_of(self, rule: MapRule, native: str) -> Iterator[tuple[Key, Source]]:
        family = families()[rule.family]
        for suffix, ours in _suffixes(rule, family):
            positions = self._positions(native) if not suffix else self._of_name(native + suffix)
            if positions and not self._type_fits(rule, native):
                return
            for position in positions:
                labels = dict(self._labels_at(position))
                if not _selected(labels, rule.where):
                    continue
                source = self._source(rule, position, ours)
                bound = _bound(labels["le"], rule) if ours == "_bucket" and "le" in labels else None
                if source is None or (ours == "_bucket" and bound is None):
                    continue
                yield (family.name, family.name + ours, self._labels(rule, family, labels, bound)), source

    def _type_fits(self, rule: MapRule, native: str) -> bool:
        """Whether TYPE agrees; `untyped` says nothing, and info metrics come as gauges in the old text."""
        metadata = self._layout.metadata
        said = self._types.get(native) or self._types.get(native.removesuffix("_total").removesuffix("_info"))
        said = said or metadata.type_of(native)
        fits = said in ("untyped", rule.exposed_type) or (said, rule.exposed_type) in (
            ("gauge", "info"),
            ("info", "gauge"),
            ("stateset", "gauge"),
            ("summary", "histogram") if rule.take != "all" else ("", ""),
        )
        if not fits:
            self._faults.append(f"{native} is a {said} here and not a {rule.exposed_type}: left out")
        return fits

    def _source(self, rule: MapRule, position: int, ours: str) -> Source | None:
        scaled = rule.kind is not Kind.HISTOGRAM or ours == "_sum"
        multiply, divide = (rule.multiply, rule.divide) if scaled else (1.0, 1.0)
        by: list[int | None] = []
        for name in (rule.multiply_by, rule.divide_by):
            other = self._beside(position, name) if name else None
            if name and other is None:
                return None
            by.append(other)
        return Source(position, multiply, divide, by[0], by[1], rule.absent_when)

    def _beside(self, position: int, name: str) -> int | None:
        """The series of another metric with the same labels, else its only one."""
        candidates = self._positions(name)
        labels = self._labels_at(position)
        for candidate in candidates:
            if self._labels_at(candidate) == labels:
                return candidate
        return candidates[0] if len(candidates) == 1 else None

    def _labels(self, rule: MapRule, family: Family, native: Mapping[str, str], bound: str | None) -> Labels:
        allowed = {*family.labels, *family.optional_labels}
        found = {
            ours: _clipped(native[key])
            for key, ours in {**self._mapping.labels, **rule.labels}.items()
            if ours in allowed and native.get(key)
        }
        # A required label is always there, even where this series does not say.
        required = {label: "" for label in family.labels if label in rule.labels.values()}
        labels = {**required, **found, **rule.set, "target": "", "engine": self._mapping.name}
        if "model" in allowed and not labels.get("model"):
            labels["model"] = self._fallback_model()
        ordered = [(name, labels[name]) for name in (*family.labels, *family.optional_labels) if name in labels]
        return tuple(ordered) if bound is None else (*ordered, ("le", bound))

    def _completed(self, outputs: dict[Key, _Output]) -> dict[Key, _Output]:
        """Histograms without buckets get the one that says nothing, +Inf, so that they stay valid histograms."""
        complete = dict(outputs)
        for (family, name, labels), output in outputs.items():
            if families()[family].kind is not Kind.HISTOGRAM or name != f"{family}_count":
                continue
            infinite = (family, f"{family}_bucket", (*labels, ("le", "+Inf")))
            if infinite not in complete:
                complete[infinite] = _Output(output.rule, output.sources)
        whole = {(family, labels) for family, name, labels in complete if name == f"{family}_count"}
        return {key: output for key, output in complete.items() if _belongs(key, whole)}

    def _assembled(self, outputs: dict[Key, _Output]) -> Plan:
        order = {name: position for position, name in enumerate(families())}
        keys = sorted(outputs, key=lambda key: _place(key, order))
        series, copied, computed = [], [], []
        for position, (family, name, labels) in enumerate(keys):
            output = outputs[(family, name, labels)]
            series.append(mapped_series(families()[family], name, labels))
            copied.append(output.sources[0].position)
            if len(output.sources) > 1 or not output.sources[0].plain():
                combine = _COMBINE[output.rule.combine]
                computed.append(Computed(position, combine, tuple(output.sources)))
        models = dict.fromkeys(one.label("model") for one in series)
        reason = "; ".join(dict.fromkeys(self._faults))
        if not series and not reason:
            reason = f"is {self._mapping.title}, but serves none of the metrics that are mapped"
        start = next(iter(self._by_name.get(self._mapping.process_start, [])), None)
        return Plan(
            self._mapping.name,
            tuple(models),
            tuple(series),
            reason,
            start,
            tuple(copied),
            tuple(computed),
            _parts(series),
        )


def _parts(series: Sequence[MappedSeries]) -> dict[str, slice]:
    """Where each family's series stand, which come one after another."""
    counted = Counter(one.family.name for one in series)
    ends = accumulate(counted.values())
    return {name: slice(end - counted[name], end) for name, end in zip(counted, ends, strict=True)}


def _suffixes(rule: MapRule, family: Family) -> list[tuple[str, str]]:
    """Pairs of native and our suffix that the rule copies."""
    if family.kind is not Kind.HISTOGRAM:
        return [({"all": "", "sum": "_sum", "count": "_count"}[rule.take], "")]
    if rule.part != "whole":
        return [({"sum": "_sum", "count": "_count"}.get(rule.take, ""), f"_{rule.part}")]
    both = [("_count", "_count"), ("_sum", "_sum")]
    return both if rule.take == "sum_count" else [("_bucket", "_bucket"), *both]


@lru_cache(maxsize=256)
def _wildcard(native: str) -> re.Pattern[str]:
    name = ".*".join(re.escape(part) for part in native.split("*"))
    return re.compile(f"({name}?)(?:_bucket|_sum|_count)?")


def _selected(labels: Mapping[str, str], where: Mapping[str, str]) -> bool:
    return all(
        re.fullmatch(wanted[1:], labels.get(name, "")) is not None
        if wanted.startswith("~")
        else labels.get(name, "") == wanted
        for name, wanted in where.items()
    )


def _bound(le: str, rule: MapRule) -> str | None:
    """The bucket's upper bound in our unit and the canonical spelling."""
    try:
        return str(floatToGoString(float(le) * rule.multiply / rule.divide))  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def _belongs(key: Key, whole: set[tuple[str, Labels]]) -> bool:
    """Whether a histogram's sample has a count beside it; other samples always belong."""
    family, name, labels = key
    if families()[family].kind is not Kind.HISTOGRAM:
        return True
    return (family, labels[:-1] if name.endswith("_bucket") else labels) in whole


def _place(key: Key, order: Mapping[str, int]) -> tuple[int, Labels, int, float]:
    family, name, labels = key
    if name.endswith("_bucket") and labels and labels[-1][0] == "le":
        return order[family], labels[:-1], 0, float(labels[-1][1])
    return order[family], labels, sample_suffix_rank(name, families()[family].kind), 0.0
