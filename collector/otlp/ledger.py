"""What arrived lately and what became of it: counts that add up at every moment, and why data is not to be seen.

Two things are kept under one lock: the metrics of the catalog's ledger `ingest`, which agree in every scrape, and a
bounded record of the last hour by sender, service and reason, for people who miss their data.
"""

from collections import Counter as Counts
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client import Counter

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.sender import Sender, shown, shown_path

MINUTES = 60
MOST_ENTRIES = 2000
# Who may fill the record with nonsense has a part of it to themselves.
STRANGERS = frozenset({Outcome.NOT_FOUND, Outcome.UNAUTHORIZED})
# Of one request; who sends more services than that at once has them noted by and by.
MOST_SOURCES = 20


class RequestKey(NamedTuple):
    """Requests that were answered alike; `signal` is empty where the path is none of OTLP's."""

    transport: str
    path: str
    signal: str
    outcome: str
    key: str
    client: str


class SourceKey(NamedTuple):
    """Items of one service, by their fate: a status, or `rejected: reason` and the like; '' is what was not said."""

    signal: str
    fate: str
    tenant: str
    service: str
    scope: str
    key: str


@dataclass(slots=True)
class Entry:
    """How often, and when; times are unix seconds."""

    first: float
    last: float = 0.0
    count: int = 0
    example: str = ""
    # The tenants that the sender's key is bound to; None for a key, or no key, that is not.
    tenants: frozenset[str] | None = None
    minutes: dict[int, int] = field(default_factory=dict)

    def add(self, now: float, count: int, example: str) -> None:
        """Counts at `now`; the newest example stays."""
        self.last = now
        self.count += count
        self.example = example or self.example
        minute = int(now // 60)
        self.minutes[minute] = self.minutes.get(minute, 0) + count
        if len(self.minutes) > MINUTES:
            del self.minutes[next(iter(self.minutes))]

    def since(self, start: float) -> int:
        """The count from the minute of `start` on, within the hour that is kept."""
        return sum(count for minute, count in self.minutes.items() if minute >= int(start // 60))


class _Recent(OrderedDict[Any, Entry]):
    """Entries by key; the one that was quiet for longest makes room."""

    forgotten = 0

    def note(self, key: Any, now: float, count: int, example: str, tenants: frozenset[str] | None) -> None:
        entry = self.get(key)
        if entry is None:
            entry = self[key] = Entry(now, tenants=tenants)
            if len(self) > MOST_ENTRIES:
                self.popitem(last=False)
                self.forgotten += 1
        else:
            self.move_to_end(key)
        entry.add(now, count, example)


@dataclass(frozen=True)
class Arrivals:
    """A copy of the record: requests, items by source and fate, and how many items of each signal wait."""

    requests: Mapping[RequestKey, Entry]
    sources: Mapping[SourceKey, Entry]
    forgotten: int
    waiting: Mapping[str, int]


class Ledger:
    """Counts requests and their items; safe to call from any thread."""

    def __init__(self, metrics: Instruments, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lock = metrics.ledger("ingest")
        self._requests = _Recent()
        self._strangers = _Recent()
        self._sources = _Recent()
        self._waiting: dict[str, int] = {}

    # --- requests ---------------------------------------------------------------------------------------------------

    def opened(self, sender: Sender) -> None:
        """A request has begun; `closed` must follow."""
        with self._lock:
            self._open(sender)

    def closed(self, sender: Sender, outcome: ExportOutcome) -> None:
        """The request has its answer."""
        with self._lock:
            self._close(sender, outcome.outcome, outcome.signal.value, outcome.message)

    def refused(self, sender: Sender, outcome: Outcome, message: str, signal: str = "") -> None:
        """A request that is answered before it is read; `signal` is empty where the path names none."""
        with self._lock:
            self._open(sender)
            self._close(sender, outcome, signal, message)

    def _open(self, sender: Sender) -> None:
        self._metrics.counters.tidegauge_ingest_received_requests_total.labels(sender.transport, sender.route).inc()
        self._metrics.gauges.tidegauge_ingest_open_requests.labels(sender.transport).inc()

    def _close(self, sender: Sender, outcome: Outcome, signal: str, message: str) -> None:
        self._metrics.gauges.tidegauge_ingest_open_requests.labels(sender.transport).dec()
        self._metrics.counters.tidegauge_ingest_requests_total.labels(sender.transport, outcome.value).inc()
        path, client = shown_path(sender.path), shown(sender.client)
        key = RequestKey(sender.transport, path, signal, outcome.value, sender.key, client)
        if outcome is Outcome.MALFORMED:
            # What comes behind may quote the body.
            message = message.partition(": ")[0]
        recent = self._strangers if outcome in STRANGERS else self._requests
        recent.note(key, self._clock.now(), 1, message[:300], sender.tenants)

    # --- items ------------------------------------------------------------------------------------------------------

    def moved(self, signal: Signal, received: int, waiting: int, counts: Iterable[tuple[Counter, str, int]]) -> None:
        """Moves the items' metrics together: so many more received, so many more (or less) waiting, and `counts`."""
        with self._lock:
            self._waiting[signal.value] = self._waiting.get(signal.value, 0) + waiting
            self._metrics.gauges.tidegauge_ingest_waiting.labels(signal.value).set(self._waiting[signal.value])
            self._metrics.counters.tidegauge_ingest_received_total.labels(signal.value).inc(received)
            for counter, label, count in counts:
                counter.labels(label).inc(count)

    def noted(self, sender: Sender, signal: Signal, fates: Mapping[str, int], services: Iterable[str] = ()) -> None:
        """Items that share a fate, of a request whose resources are these services; nothing else is known of them."""
        service = ", ".join(sorted(set(services))[:3])
        now = self._clock.now()
        with self._lock:
            for fate, count in fates.items():
                if count:
                    key = SourceKey(signal.value, fate, "", shown(service), "", sender.key)
                    self._sources.note(key, now, count, "", sender.tenants)

    def arrived(self, sender: Sender, signal: Signal, fate: str, table: pa.Table) -> None:
        """Rows with what they say of themselves: columns `tenant`, `service`, `scope`, as far as there are any."""
        found = _by_source(table)
        now = self._clock.now()
        with self._lock:
            for (tenant, service, scope), count in found.most_common(MOST_SOURCES):
                key = SourceKey(
                    signal.value, fate, shown(tenant or ""), shown(service or ""), shown(scope or ""), sender.key
                )
                self._sources.note(key, now, count, "", sender.tenants)

    # --- reading ----------------------------------------------------------------------------------------------------

    def recent(self) -> Arrivals:
        """A copy of what is known."""
        with self._lock:
            return Arrivals(
                {key: _copied(entry) for key, entry in (*self._requests.items(), *self._strangers.items())},
                {key: _copied(entry) for key, entry in self._sources.items()},
                self._requests.forgotten + self._strangers.forgotten + self._sources.forgotten,
                dict(self._waiting),
            )


class Tally:
    """The items of one request: counted as received at once, and as what became of them when that is known."""

    def __init__(self, ledger: Ledger, sender: Sender, signal: Signal, statuses: Counter) -> None:
        self._ledger = ledger
        self._sender = sender
        self._signal = signal
        self._statuses = statuses

    def received(
        self, waiting: int, left_out: Mapping[str, tuple[str, int]], reasons: Counter, services: Iterable[str] = ()
    ) -> None:
        """`waiting` items are to be stored; of the others, each reason gives its status and how many."""
        counts = [(self._statuses, status, count) for status, count in left_out.values()]
        counts += [(reasons, reason, count) for reason, (_, count) in left_out.items()]
        received = waiting + sum(count for _, count in left_out.values())
        self._ledger.moved(self._signal, received, waiting, counts)
        if left_out:
            fates = {f"{status}: {reason}": count for reason, (status, count) in left_out.items()}
            self._ledger.noted(self._sender, self._signal, fates, services)

    def ended(self, table: pa.Table, fates: Mapping[str, int]) -> None:
        """The items that waited, by status; `table` has their rows, which are recorded under the commonest status."""
        counts = [(self._statuses, status, count) for status, count in fates.items()]
        self._ledger.moved(self._signal, 0, -sum(fates.values()), counts)
        self._ledger.arrived(self._sender, self._signal, max(fates, key=lambda status: fates[status]), table)


def services(resources: Iterable[Resource]) -> Iterator[str]:
    """The names that resources give their services."""
    for resource in resources:
        for item in resource.attributes:
            if item.key == "service.name":
                yield item.value.string_value


def _by_source(table: pa.Table) -> "Counts[tuple[str | None, ...]]":
    # Up to 500 rows this is quicker than Arrow's own grouping, which costs 0.1 ms to begin with.
    columns = [
        table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in ("tenant", "service", "scope")
    ]
    return Counts(zip(*columns, strict=True))


def _copied(entry: Entry) -> Entry:
    return Entry(entry.first, entry.last, entry.count, entry.example, entry.tenants, dict(entry.minutes))
