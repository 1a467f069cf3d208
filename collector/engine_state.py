"""Rows of the table `engine_state`: gauges as they are, counters cumulated and corrected for resets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from catalog.family import Kind
from collector.mapped import Mapped, MappedSeries, Plan
from store.tables import ENGINE_STATE

Row = tuple[str, str | None]  # model, rank
Record = dict[str, Any]  # a row of `engine_state`, without what is null
# Models that came and went, as names with an id in them do, must not add up; a model that pauses is counted on.
MAX_ROWS_GONE = 1_000


@dataclass(slots=True)
class _Counter:
    """One counting series: what it said last, and what it had counted before its resets."""

    last: float
    before: float = 0.0

    @property
    def total(self) -> float:
        return self.before + self.last


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a mapped series goes."""

    row: Row
    column: str
    counts: bool
    text: str


@dataclass(slots=True)
class _TargetState:
    started: float | None = None
    counters: dict[Row, dict[str, _Counter]] = field(default_factory=dict)


class EngineStates:
    """Turns scrapes into rows, one per model and rank.  What the engine does not say is null.

    A reset is seen when any counter of a row falls, or when the engine's process says that it started anew; then
    all counters of the row begin again, so that one which overtook its old value between two scrapes counts right.
    """

    def __init__(self) -> None:
        self._targets: dict[str, _TargetState] = {}
        self._places: WeakKeyDictionary[Plan, list[tuple[int, _Place]]] = WeakKeyDictionary()
        self._lock = Lock()

    def forget(self, target: str) -> None:
        """Drops what is known of a target."""
        self._targets.pop(target, None)

    def remembered(self, target: str) -> int:
        """Rows of a target whose counters are in memory."""
        return len(self._targets[target].counters) if target in self._targets else 0

    def rows(self, mapped: Mapped) -> list[Record]:
        """The rows of one scrape, for `table_of`; none where no family with a column is served."""
        state = self._targets.setdefault(mapped.target.name, _TargetState())
        places = self._places_of(mapped.plan)
        restarted = _restarted(state, mapped)
        rows: dict[Row, dict[str, float]] = {}
        counted: dict[Row, dict[str, float]] = {}
        for position, place in places:
            value = mapped.values[position]
            if value is None:
                continue
            if place.counts:
                counted.setdefault(place.row, {})[place.text] = value
            columns = rows.setdefault(place.row, {})
            if not place.counts:
                columns[place.column] = columns.get(place.column, 0.0) + value
        for row, values in counted.items():
            _count(state.counters.setdefault(row, {}), values, restarted)
        for _, place in places:
            if place.counts and place.text in counted.get(place.row, {}):
                columns = rows[place.row]
                total = state.counters[place.row][place.text].total
                columns[place.column] = columns.get(place.column, 0.0) + total
        if len(state.counters) > len(counted) + MAX_ROWS_GONE:
            state.counters = {row: state.counters[row] for row in counted}
        return _records(mapped, rows)

    def _places_of(self, plan: Plan) -> list[tuple[int, _Place]]:
        with self._lock:
            if plan not in self._places:
                self._places[plan] = list(_places(plan))
            return self._places[plan]


def _count(counters: dict[str, _Counter], values: Mapping[str, float], restarted: bool) -> None:
    """Takes in the values of one row's counters."""
    reset = restarted or any(value < counters[text].last for text, value in values.items() if text in counters)
    if reset:
        for counter in counters.values():
            counter.before, counter.last = counter.total, 0.0
    for text, value in values.items():
        counter = counters.setdefault(text, _Counter(0.0))
        counter.last = value


def _restarted(state: _TargetState, mapped: Mapped) -> bool:
    """Whether the process's start time is another than before."""
    if mapped.started is None:
        return False
    before, state.started = state.started, mapped.started
    return before is not None and mapped.started != before


def _places(plan: Plan) -> Iterable[tuple[int, _Place]]:
    for position, series in enumerate(plan.series):
        column = _column(series)
        if column and series.label("vantage") in ("", "engine"):
            row = (series.label("model"), series.label("rank") or None)
            yield position, _Place(row, column, series.family.kind is not Kind.GAUGE, series.text_of(""))


def _column(series: MappedSeries) -> str:
    """The column that keeps the series, or ''."""
    state = series.family.state
    if not state or series.family.kind is not Kind.HISTOGRAM:
        return state
    suffix = series.name.rpartition("_")[2]
    return "" if suffix == "bucket" else f"{state}_{suffix}"


def _records(mapped: Mapped, rows: Mapping[Row, Mapping[str, float]]) -> list[Record]:
    labels = mapped.target.labels
    fixed = {
        "time": datetime.fromtimestamp(mapped.at, UTC),
        "target": mapped.target.name,
        "engine": mapped.plan.engine,
        "instance": labels.get("instance"),
        "environment": labels.get("environment"),
    }
    return [{**fixed, "model": model, "rank": rank, **columns} for (model, rank), columns in rows.items()]


def table_of(records: Sequence[Record]) -> pa.Table:
    """Rows, of one scrape or of many, in the schema of `ENGINE_STATE`."""
    return pa.Table.from_pylist(list(records), schema=ENGINE_STATE)
