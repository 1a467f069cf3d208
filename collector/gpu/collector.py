"""Looks at the GPUs at a steady pace, serves what it saw and hands it to the store."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from time import perf_counter
from typing import Any, Protocol

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.gpu.counters import Counters
from collector.gpu.exposition import GpuExposition
from collector.gpu.readings import Look, Reading, Source, state_table
from collector.gpu.settings import Enabled, GpuSettings
from collector.gpu.states import GpuStates
from collector.gpu.thread import OwnThread
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable

log = logging.getLogger(__name__)


class Sink(Protocol):
    """What takes the rows: the store's writer."""

    def submit(self, batch: Batch) -> "Future[Committed]":
        """Queues rows; raises StoreOverloaded or StoreUnavailable at once."""


class GpuCollector:
    """The GPU part of the service.

    `source` may be None where readings come by `take` alone, as in a replay.
    """

    def __init__(
        self, settings: GpuSettings, source: Source | None, sink: Sink, clock: Clock, metrics: Instruments
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._thread = OwnThread("gpu")
        self._pending: asyncio.Future[Look] | None = None
        self._counters = Counters()
        self._exposition = GpuExposition()
        self._states = GpuStates(metrics)
        self._asked_at = 0.0
        self._at: float | None = None
        self._readings: tuple[Reading, ...] = ()
        self._closed = False
        # For a recorder: what the driver gave, at Unix time.
        self.on_look: Callable[[Iterable[Reading], float], None] | None = None
        metrics.registry.register(self._exposition)

    async def run(self) -> None:
        """Looks every `interval` until cancelled; returns at once if switched off."""
        if self._settings.enabled is Enabled.FALSE or self._source is None:
            self._states.collector("disabled")
            return
        due = self._clock.now()
        try:
            while True:
                await self._round()
                # A late look does not make the next ones hurry.
                due = max(due + self._settings.interval, self._clock.now())
                await self._clock.sleep(due - self._clock.now())
        finally:
            await self.close()

    async def look(self) -> None:
        """One look at all GPUs; returns after `deadline` even if the driver does not."""
        if self._source is None:
            return
        if self._pending is None:
            source, now = self._source, self._clock.now()
            self._asked_at, started = now, perf_counter()
            self._pending = self._thread.call(lambda: source.read(now))
            await asyncio.wait({self._pending}, timeout=self._settings.deadline)
            self._metrics.gauges.tidegauge_gpu_collect_duration_seconds.set(perf_counter() - started)
        if not self._pending.done():
            self._show("hung", ())
            return
        pending, self._pending = self._pending, None
        self._took(pending.result(), self._asked_at)

    def take(self, readings: Iterable[Reading], at: float) -> "Future[Committed] | None":
        """Serves and stores readings of unix time `at`, from wherever they come; the same way for NVML and a replay.

        The future resolves after the commit; None if there are no rows, or the store did not take them (counted).
        """
        return self._accept(readings, at, "")

    def state(self) -> dict[str, Any]:
        """The collector itself: up, reason, time of the last look (unix seconds, None before the first)."""
        reason = self._states.reason
        return {"up": reason == "", "reason": reason, "last_look": self._at, "gpus": len(self._readings)}

    def statuses(self) -> list[dict[str, Any]]:
        """Each GPU: whether it answers, MIG, its processes, and which values it cannot give, and why."""
        return [_status(reading) for reading in self._readings]

    async def close(self) -> None:
        """Lets go of the driver, as far as it lets go within `deadline`; may be called twice, or before `run`."""
        if self._closed:
            return
        self._closed = True
        if self._source is not None:
            closing = self._thread.call(self._source.close)
            await asyncio.wait({closing}, timeout=self._settings.deadline)
        self._thread.stop()

    async def _round(self) -> None:
        try:
            await self.look()
        except Exception:
            # Nothing that a driver does may end the loop.
            self._metrics.counters.tidegauge_loop_errors_total.labels(loop="gpu").inc()
            log.exception("gpu_look_failed")
            self._show("error", ())

    def _took(self, look: Look, at: float) -> None:
        for gpu in look.failed:
            self._metrics.counters.tidegauge_gpu_collect_errors_total.labels(gpu=gpu).inc()
        if look.reason != self._states.reason:
            # Where GPUs were asked for in so many words, their absence is worth a warning.
            level = logging.WARNING if look.reason and self._settings.enabled is Enabled.TRUE else logging.INFO
            log.log(level, "gpu_collector", extra={"reason": look.reason or "up", "gpus": len(look.readings)})
        if self.on_look is not None:
            self.on_look(look.readings, at)
        self._accept(look.readings, at, look.reason)

    def _accept(self, readings: Iterable[Reading], at: float, reason: str) -> "Future[Committed] | None":
        corrected = tuple(self._counters.correct(reading, at) for reading in readings)
        self._at = at
        self._show(reason, corrected)
        return self._store(corrected, at) if corrected else None

    def _show(self, reason: str, readings: Sequence[Reading]) -> None:
        self._readings = tuple(readings)
        self._exposition.show(self._readings)
        self._states.collector(reason)
        self._states.gpus(self._readings)

    def _store(self, readings: Sequence[Reading], at: float) -> "Future[Committed] | None":
        try:
            future = self._sink.submit(Batch({"gpu_state": state_table(readings, at)}))
        except StoreOverloaded:
            self._drop("overloaded", len(readings))
        except StoreUnavailable:
            self._drop("unavailable", len(readings))
        else:
            future.add_done_callback(lambda done: self._settled(done, len(readings)))
            return future
        return None

    def _settled(self, done: "Future[Committed]", rows: int) -> None:
        if done.cancelled() or done.exception() is not None:
            self._drop("unavailable", rows)

    def _drop(self, reason: str, rows: int) -> None:
        self._metrics.counters.tidegauge_gpu_rows_dropped_total.labels(reason=reason).inc(rows)


def host_node(settings: GpuSettings) -> str:
    """The `node` label of this machine's GPUs."""
    return settings.node or socket.gethostname()


def _status(reading: Reading) -> dict[str, Any]:
    return {
        "gpu": reading.gpu,
        "node": reading.node,
        "gpu_model": reading.gpu_model,
        "up": reading.problem == "",
        "problem": reading.problem,
        "mig": reading.mig,
        "missing": {name: reason for name, reason in reading.availability.items() if reason},
        "processes": None if reading.running is None else [asdict(process) for process in reading.running],
    }
