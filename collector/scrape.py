"""Scrapes every target at its own moment of the interval; one that misbehaves costs the others nothing."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

import aiohttp
import pyarrow as pa
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.discovery.build import sources
from collector.discovery.listing import TargetList
from collector.discovery.source import Followed
from collector.engine_state import EngineStates, Record, table_of
from collector.fetch import ScrapeFailure, allow_connections, fetch, new_session
from collector.ingest import ScrapeIngest, ScrapeResult, TargetStatus
from collector.served import Served
from collector.settings import ScrapeSettings
from collector.targets import Target

log = logging.getLogger(__name__)
TRACER = trace.get_tracer("tidegauge.collector")

Sink = Callable[[pa.Table], Awaitable[None] | None]
KEEP_ALIVE_INTERVALS = 2
ROWS_EVERY_SECONDS = 1.0
PARSING_THREADS = 2
OnScrape = Callable[[ScrapeResult], Awaitable[None] | None]


def phase(url: str, interval: float) -> float:
    """When in the interval a target's turn is: spread over the targets, and the same after a restart.

    >>> 0 <= phase("http://gpu-7:8000/metrics", 5.0) < 5.0
    True
    """
    digest = hashlib.blake2b(url.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval


class Scraper:
    """Keeps one loop per target; `run` ends when it is cancelled.

    `sink` gets each scrape's rows of `engine_state`; `on_scrape` gets every result, good or bad.  An error of either
    is counted and logged, and the scraping goes on.
    """

    def __init__(
        self,
        settings: ScrapeSettings,
        served: Served,
        engine_states: EngineStates,
        sink: Sink,
        clock: Clock,
        metrics: Instruments,
        on_scrape: OnScrape | None = None,
    ) -> None:
        self._settings = settings
        self.ingest = ScrapeIngest(settings, served, engine_states, metrics)
        checking = not settings.relabel_configs
        found = sources(settings.http_sd, settings.dns_sd, settings.kubernetes_sd, checking=checking)
        self._followed = [Followed(source, clock, metrics) for source in found]
        static = (entry.target() for entry in settings.targets)
        self._targets = TargetList(
            static, settings.file_sd, metrics, self._followed, settings.relabel_configs, settings.shard
        )
        self._sink = sink
        self._on_scrape = on_scrape
        self._clock = clock
        self._metrics = metrics
        self._loops: dict[Target, asyncio.Task[None]] = {}
        self._rows: list[Record] = []
        # A pool of its own: whatever a target sends, others who need a thread do not wait for it.
        self._parsing = ThreadPoolExecutor(PARSING_THREADS, thread_name_prefix="scrape")

    async def run(self) -> None:
        """Scrapes until cancelled, following what the sources of targets say."""
        allow_connections()
        session = new_session(KEEP_ALIVE_INTERVALS * self._settings.interval)
        beside = [asyncio.create_task(work) for work in (self._store(), *(one.follow() for one in self._followed))]
        try:
            while True:
                await self._follow(session)
                await self._clock.sleep(self._settings.file_sd_refresh)
        finally:
            await _cancelled(beside)
            await self._stop(list(self._loops))
            await self._hand_rows()
            await session.close()

    async def once(self) -> list[ScrapeResult]:
        """Every target scraped now, at the same time: for `tidegauge check --live`."""
        await asyncio.gather(*(one.look() for one in self._followed))
        targets = await asyncio.to_thread(self._targets.refresh)
        await asyncio.gather(*(one.source.close() for one in self._followed))
        async with new_session() as session:
            results = await asyncio.gather(*(self.scrape(target, session) for target in targets))
        await self._hand_rows()
        return results

    def statuses(self) -> list[TargetStatus]:
        """What is known of every target."""
        return self.ingest.statuses()

    def discovery_errors(self) -> list[str]:
        """What is wrong with the sources of targets now."""
        return self._targets.errors

    def discovery(self) -> dict[str, Any]:
        """How the sources are, and which targets were left out, JSON-ready: for `GET /api/v1/targets`."""
        chosen = self._targets.chosen
        return {
            "sources": [asdict(status) for status in self._targets.sources()],
            "dropped": dict(chosen.dropped),
            "dropped_examples": [asdict(example) for example in chosen.examples],
            "errors": self.discovery_errors(),
        }

    async def scrape(self, target: Target, session: aiohttp.ClientSession) -> ScrapeResult:
        """One scrape, through to what is served and stored."""
        with TRACER.start_as_current_span("scrape", attributes={"tidegauge.target": target.name}) as span:
            result = await self._scrape(target, session)
            if not result.ok:
                span.set_attribute("error.type", result.reason)
                span.set_status(StatusCode.ERROR)
            return result

    async def _scrape(self, target: Target, session: aiohttp.ClientSession) -> ScrapeResult:
        began, at = perf_counter(), self._clock.now()
        settings = self._settings
        try:
            answer = await fetch(session, target, settings.timeout, settings.max_body)
        except ScrapeFailure as failure:
            if self.ingest.on_scrape is not None:
                self.ingest.on_scrape(target, at, None, str(failure))
            result = self.ingest.failed(target, failure.reason, str(failure), at)
        else:
            work = partial(self.ingest.ingest, target, answer.text, at, openmetrics=answer.openmetrics)
            if len(answer.text) > settings.parse_in_thread_above:
                result = await _to_the_end(asyncio.get_running_loop().run_in_executor(self._parsing, work))
            else:
                result = work()
        self.ingest.took(target, perf_counter() - began)
        self._rows += result.records
        if self._on_scrape is not None:
            await _awaited(self._on_scrape(result))
        return result

    async def _store(self) -> None:
        """Hands on what was scraped, many targets' rows at once: a commit costs more than its rows."""
        while True:
            await self._clock.sleep(min(ROWS_EVERY_SECONDS, self._settings.interval))
            await self._hand_rows()

    async def _hand_rows(self) -> None:
        rows, self._rows = self._rows, []
        try:
            if rows:
                await _awaited(self._sink(table_of(rows)))
        except Exception as error:
            self._unexpected("scrape", error)

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """Starts and stops loops so that there is one for each target."""
        try:
            targets = await asyncio.to_thread(self._targets.refresh)
        except Exception as error:  # whatever a file holds, the known targets stay
            self._unexpected("discovery", error)
            return
        listed = set(targets)
        await self._stop([target for target in self._loops if target not in listed])
        for target in targets:
            if target not in self._loops:
                self.ingest.expect(target)
                self._loops[target] = asyncio.create_task(self._watch(target, session), name=f"scrape {target.name}")

    async def _stop(self, targets: list[Target]) -> None:
        await _cancelled([self._loops.pop(target) for target in targets])
        for target in targets:
            self.ingest.forget(target)

    async def _watch(self, target: Target, session: aiohttp.ClientSession) -> None:
        interval = self._settings.interval
        now = self._clock.now()
        turn = now + (phase(target.url, interval) - now) % interval
        while True:
            await self._clock.sleep(turn - self._clock.now())
            try:
                await self.scrape(target, session)
            except Exception as error:  # not even a fault of ours may end the loop
                self._unexpected("scrape", error, target.name)
            missed = max(0.0, self._clock.now() - turn) // interval
            turn += (missed + 1) * interval

    def _unexpected(self, loop: str, error: Exception, target: str = "") -> None:
        self._metrics.counters.tidegauge_loop_errors_total.labels(loop=loop).inc()
        log.error(
            "loop_error", extra={"loop": loop, "target": target, "error": f"{type(error).__name__}: {error}"[:300]}
        )


async def _to_the_end(work: asyncio.Future[ScrapeResult]) -> ScrapeResult:
    """The outcome of work in a thread, which a cancellation does not stop: so it is waited for, then cancelled."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(outcome: Awaitable[None] | None) -> None:
    if outcome is not None:
        await outcome
