"""A store in memory and simulated traffic, for tests of drift detection."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client import CollectorRegistry

from catalog.instruments import Instruments
from evals.drift.monitor import DriftMonitor, RoundReport
from evals.drift.settings import DriftSettings
from store.batch import Batch, Committed, conform

T0 = 1_800_000_000.0
Rng = np.random.Generator


def rows(time: Any, value: Any, **columns: Any) -> pa.Table:
    """Rows as `signal_values` gives them; `time` is seconds after T0, a column may be one value for all rows."""
    moments = pa.array(((np.asarray(time) + T0) * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))
    table = {"value": pa.array(value), "time": moments}
    table["trace_id"] = pa.array([f"t{index}" for index in range(len(moments))])
    for name, column in columns.items():
        table[name] = pa.array([column] * len(moments) if isinstance(column, str) else column, pa.string())
    return pa.table(table)


class MemoryStore:
    """Reads and writes of the drift monitor, in memory."""

    def __init__(self, signals: Mapping[str, pa.Table]) -> None:
        self.signals = dict(signals)
        self.tables: dict[str, list[dict[str, Any]]] = {"drift_results": [], "deployments": []}

    def signal_values(self, column: str, dimensions: Sequence[str], start: float, end: float) -> pa.Table:
        table = self.signals[column]
        time = pc.cast(table.column("time"), pa.int64())
        inside = pc.and_(pc.greater_equal(time, round(start * 1e6)), pc.less(time, round(end * 1e6)))
        table = table.filter(inside).sort_by("time")
        for name in dimensions:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        return table

    def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        if name == "deployments":
            return [{**row, "stream": json.loads(row["stream"])} for row in self.tables["deployments"]]
        assert name == "drift_memory"
        last: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in self.tables["drift_results"]:
            kept = row["state"] != "none" or row["comparison"] == "predecessor"
            if kept and parameters["since"] <= row["round_time"] < parameters["before"]:
                last[(row["signal"], row["slice"], row["comparison"], row["since"])] = row
        parsed = [{**row, "evidence": json.loads(row["evidence"])} for row in last.values()]
        return sorted(parsed, key=lambda row: row["round_time"])

    def submit(self, batch: Batch) -> "Future[Committed]":
        for name, table in batch.tables.items():
            self.tables[name] += conform(name, table).to_pylist()
        future: Future[Committed] = Future()
        future.set_result(Committed({}, {}, len(self.tables["drift_results"])))
        return future


class StillClock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)


def monitor(store: MemoryStore, settings: DriftSettings, seed: int = 0) -> DriftMonitor:
    """A monitor on a store in memory, its rounds counted from T0."""
    metrics = Instruments(CollectorRegistry())
    return DriftMonitor(settings, store, store, StillClock(T0), metrics, np.random.default_rng(seed), T0)


async def run(drift: DriftMonitor, settings: DriftSettings, start: float, end: float) -> list[RoundReport]:
    """All rounds in (start, end], seconds after T0."""
    step = settings.round
    numbers = range(int(start // step) + 1, int(end // step) + 1)
    return [await drift.step(T0 + number * step) for number in numbers]


def seconds_after(moment: str | datetime | None) -> float | None:
    """Seconds from T0 to a time."""
    if moment is None:
        return None
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return when.timestamp() - T0


def traffic(
    rng: Rng,
    seconds: float,
    *,
    per_second: float = 4.0,
    tenants: Mapping[str, float] | None = None,
    version: Any = lambda tenant, time: "1",
    share: Any = lambda tenant, version, time: 0.2,
) -> pa.Table:
    """Answers of one support bot that decline with a probability `share(tenant, version, time)`."""
    tenants = tenants or {"bank": 0.4, "retail": 0.4, "games": 0.2}
    time = np.sort(rng.random(rng.poisson(seconds * per_second))) * seconds
    tenant = rng.choice(list(tenants), len(time), p=list(tenants.values()))
    versions = [version(name, moment) for name, moment in zip(tenant, time, strict=True)]
    shares = [share(*row) for row in zip(tenant, versions, time, strict=True)]
    value = (rng.random(len(time)) < np.array(shares)).astype(float)
    return rows(
        time, value, tenant=list(tenant), prompt_version=versions, prompt_name="support", service="bot", model="tiny"
    )
