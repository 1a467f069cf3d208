"""What stands around a GPU collector in its tests: a clock by hand, a sink that remembers, and a scrape."""

import asyncio
from concurrent.futures import Future

import pyarrow as pa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from catalog.instruments import Instruments
from store.batch import Batch, Committed, conform


class HandClock:
    """Moves by what is slept; stops the sleeper for good after `ticks` sleeps."""

    def __init__(self, ticks: int = 10**9, start: float = 1000.0) -> None:
        self.time = start
        self.ticks = ticks

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.time += seconds
        self.ticks -= 1
        if self.ticks <= 0:
            raise asyncio.CancelledError


class Kept:
    """Keeps the rows of `gpu_state`, or raises `error` at once, or fails the commit with `late`."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.error: Exception | None = None
        self.late: Exception | None = None

    def submit(self, batch: Batch) -> "Future[Committed]":
        if self.error is not None:
            raise self.error
        self.tables.append(conform("gpu_state", batch.tables["gpu_state"]))
        done: Future[Committed] = Future()
        if self.late is not None:
            done.set_exception(self.late)
        else:
            done.set_result(Committed({"gpu_state": 1}, {}, 1))
        return done

    def rows(self) -> list[dict[str, object]]:
        return [row for table in self.tables for row in table.to_pylist()]


Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(registry: CollectorRegistry) -> Scrape:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def named(samples: Scrape, name: str) -> dict[str, float]:
    """Samples of one name, by their labels without the GPU's own."""
    return {
        ",".join(f"{key}={value}" for key, value in sorted(labels) if key not in ("gpu", "node", "gpu_model")): value
        for (sample, labels), value in samples.items()
        if sample == name
    }


def instruments() -> Instruments:
    return Instruments(CollectorRegistry())
