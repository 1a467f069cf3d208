"""The targets of now: what every source found, relabelled, this collector's part of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from catalog.instruments import Instruments
from collector.discovery.files import Files
from collector.discovery.found import ADDRESS, Found, of_url
from collector.discovery.relabel import Relabelling, RelabelSettings, hashmod
from collector.discovery.settings import ShardSettings
from collector.discovery.source import Followed
from collector.targets import Target, clashes

KINDS = ("static", "file_sd", "http_sd", "dns_sd", "kubernetes_sd")
MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Dropped:
    """A target that was found and is not scraped: its labels before relabelling, and why."""

    source: str
    reason: str  # relabelled, sharded, invalid, clash
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How one source is."""

    source: str
    found: int
    error: str = ""
    last_success: float | None = None  # Unix seconds, of sources that are asked over the network


@dataclass(slots=True)
class Chosen:
    """What came of one look at the sources."""

    targets: dict[str, Target] = field(default_factory=dict)  # by name
    dropped: Counter[str] = field(default_factory=Counter)
    examples: list[Dropped] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def drop(self, found: Found, reason: str, fault: str = "") -> None:
        """Leaves a target out."""
        self.dropped[reason] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Dropped(found.source, reason, dict(found.labels)))
        if fault and len(self.faults) < MAX_EXAMPLES:
            self.faults.append(f"{found.source.removeprefix('file_sd ')}: left out: {fault}")


class TargetList:
    """The targets of now.  A broken source keeps its last good version, is counted and reported in `errors`.

    Of two targets that share a name the static one wins, then the earlier file's, then the earlier source's.
    """

    def __init__(
        self,
        static: Iterable[Target],
        patterns: Sequence[str],
        metrics: Instruments,
        followed: Sequence[Followed] = (),
        relabel: Sequence[RelabelSettings] = (),
        shard: ShardSettings | None = None,
    ) -> None:
        given = list(static)
        if faults := clashes(given):
            raise ValueError("; ".join(faults))
        self._static = [of_url(target.url, target.labels, "static", target.token) for target in given]
        self._relabelling = Relabelling(relabel)
        self._files = Files(patterns, checking=not self._relabelling)
        self._followed = followed
        self._shard = shard or ShardSettings()
        self._metrics = metrics
        self._seen: list[Sequence[Found]] = []
        self.chosen = Chosen()

    @property
    def errors(self) -> list[str]:
        """What is wrong with the sources now, one line each; empty if nothing is."""
        files = [f"{path}: {file.error}" for path, file in self._files.known.items() if file.error]
        asked = [f"{one.source.name}: {one.error}" for one in self._followed if one.error]
        return files + asked + self.chosen.faults

    def sources(self) -> list[SourceStatus]:
        """How each source is."""
        static = [SourceStatus("static", len(self._static))] if self._static else []
        files = [
            SourceStatus(f"file_sd {path}", len(file.found), file.error) for path, file in self._files.known.items()
        ]
        asked = [
            SourceStatus(one.source.name, len(one.source.found()), one.error, one.last_success)
            for one in self._followed
        ]
        return static + files + asked

    def refresh(self) -> list[Target]:
        """Reads the files that have changed; all targets in the order of their listing.  Blocks on the disk."""
        failed = self._files.refresh()
        if failed:
            self._metrics.counters.tidegauge_discovery_errors_total.labels(source="file_sd").inc(failed)
        files = [file.found for file in self._files.known.values()]
        found: list[Sequence[Found]] = [self._static, *files, *(one.source.found() for one in self._followed)]
        if len(found) != len(self._seen) or any(new is not old for new, old in zip(found, self._seen, strict=True)):
            self.chosen, self._seen = self._choose(one for each in found for one in each), found
            self._show()
        return list(self.chosen.targets.values())

    def _choose(self, found: Iterable[Found]) -> Chosen:
        chosen = Chosen()
        for one in found:
            labels = self._relabelling.of(one.labels)
            if labels is None or not labels.get(ADDRESS):
                chosen.drop(one, "relabelled")
            elif hashmod(labels[ADDRESS], self._shard.count) != self._shard.index:
                chosen.drop(one, "sharded")
            else:
                self._add(chosen, one, labels)
        return chosen

    def _add(self, chosen: Chosen, found: Found, labels: dict[str, str]) -> None:
        try:
            target = found.target(labels)
        except ValueError as error:
            chosen.drop(found, "invalid", str(error))
            return
        other = chosen.targets.setdefault(target.name, target)
        if other is target:
            return
        same = other == target
        chosen.drop(found, "clash", "" if same else clashes([other, target])[0])

    def _show(self) -> None:
        kinds = Counter(target.source.partition(" ")[0] for target in self.chosen.targets.values())
        for kind in KINDS:
            self._metrics.gauges.tidegauge_targets.labels(source=kind).set(kinds[kind])
        for reason in ("relabelled", "sharded", "invalid", "clash"):
            self._metrics.gauges.tidegauge_targets_dropped.labels(reason=reason).set(self.chosen.dropped[reason])
