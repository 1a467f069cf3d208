"""The running service: its parts, in the order in which data flows through them, started and stopped together."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pynvml
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from catalog.clock import Clock, SystemClock
from catalog.instruments import Instruments
from collector.engine_state import EngineStates
from collector.exposition.writer import OPENMETRICS_CONTENT_TYPE
from collector.gpu.collector import GpuCollector, host_node
from collector.gpu.nvml import NvmlSource
from collector.otlp.grpc import AddressInUseError, GrpcServer
from collector.otlp.handler import Transform
from collector.otlp.http import router as otlp_routes
from collector.otlp.metrics.exposition import exposition
from collector.otlp.receiver import OtlpReceiver
from collector.redaction.columns import Privacy
from collector.redaction.requests import RequestPrivacy
from collector.redaction.settings import Capture
from collector.remote_write.writer import RemoteWriter
from collector.request_metrics import RequestMetrics
from collector.scrape import Scraper
from collector.served import Served
from evals.drift.monitor import DriftMonitor
from evals.judge.client import JudgeClient
from evals.runner import EvalRunner, judge_tokens_today
from service import locate
from service.api import exports, recordings
from service.api.app import PREFIX, build_api, build_front
from service.auth import KeyStore
from service.config import Config, is_loopback
from service.context import Context
from service.counting import RequestCounting
from service.engine_rows import EngineRows
from service.gauges import StoreGauges
from service.grpc_keys import admission
from service.incidents import Incidents
from service.listeners import AddressTaken, HttpListener, Watch, bind
from service.loop_lag import watch
from service.recordings import Recordings
from service.replay.recorder import Recorder
from service.store_watch import StoreWatch
from service.version import VERSION
from store.database import Database
from store.followers import Followers
from store.reads import Reads
from store.writer import Writer

LOG = logging.getLogger("tidegauge.service")
GAUGES_EVERY_SECONDS = 10.0
STORE_EVERY_SECONDS = 2.0
FOLLOW_EVERY_SECONDS = 15.0
# How old a span may be that an evaluation names by its response alone.
SUBJECT_SECONDS = 86400.0
COUNT_EVERY_SECONDS = 2.0


class NotSafeToListen(Exception):
    """An address that others reach, and no key to keep them out."""


class Service:
    """All parts over one data directory.

    A replay passes its own clock and drives the parts itself; `serve` passes none and starts the loops.
    """

    def __init__(self, config: Config, clock: Clock | None = None, transform: Transform | None = None) -> None:
        """Opens the store and makes the parts; nothing listens or collects yet."""
        self.config = config
        self.clock = clock or SystemClock()
        self.registry = CollectorRegistry()
        self.metrics = Instruments(self.registry)
        self.metrics.start_at_zero()
        self.metrics.gauges.tidegauge_build_info.labels(VERSION).set(1)
        self.database = Database(config.data, config.store)
        self.writer = Writer(self.database, self.clock, self.metrics, config.store)
        self.reads = Reads(self.database)
        self.store_watch = StoreWatch(self.database, self.clock, self.metrics, config.store.retention)
        self.keys = KeyStore(config.data, self.clock)
        self._collectors(transform)
        self._evals()
        self._http: list[HttpListener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._listeners: dict[str, dict[str, Any]] = {}
        self._stopped = False
        self._local_token = locate.new_token()
        self.recordings = Recordings(self.clock, self._tap, RequestPrivacy(self.privacy, config.otlp.tenant_keys).clean)
        self.app = self._app()
        self.remote_writers = self._remote_writers()
        self._grpc = GrpcServer(self.receiver, config.otlp_grpc, admission(self.app.state.gate))

    def _collectors(self, transform: Transform | None) -> None:
        config, clock, metrics = self.config, self.clock, self.metrics
        self.served = Served(clock, config.scrape.staleness(), self.registry)
        self.engine_rows = EngineRows(self.writer, metrics)
        self.scraper = Scraper(config.scrape, self.served, EngineStates(), self.engine_rows, clock, metrics)
        source = NvmlSource(pynvml, config.gpu, host_node(config.gpu))
        self.gpu = GpuCollector(config.gpu, source, self.writer, clock, metrics)
        key = _user_key(config.data)
        self.privacy = Privacy(config.privacy, key, metrics)
        submit = self.privacy.before(self.writer.submit)
        self.receiver = OtlpReceiver(config.otlp, submit, clock, metrics, key, transform, self._subjects)
        self.served.add(partial(exposition, self.receiver.series))

    def _subjects(self, traces: Sequence[str], responses: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        return self.reads.subjects(traces, responses, since=self.clock.now() - SUBJECT_SECONDS)

    def _remote_writers(self) -> list[RemoteWriter]:
        def page() -> str:
            return self.served.render(OPENMETRICS_CONTENT_TYPE)[0].decode()

        directory = self.config.data / "remote_write"
        return [
            RemoteWriter(settings, page, directory, self.clock, self.metrics, random.Random())
            for settings in self.config.remote_write
        ]

    def _evals(self) -> None:
        config, clock, metrics = self.config, self.clock, self.metrics
        self.judge: JudgeClient | None = None
        if config.evals.judges and config.evals.judge is not None:
            used = judge_tokens_today(self.reads, clock)
            self.judge = JudgeClient(config.evals.judge, clock, metrics, random.Random(), used)
        self.runner = EvalRunner(
            config.evals, self.reads, self.writer, clock, metrics, self.judge, under_load=self.receiver.busy
        )
        self.counting = RequestCounting(
            self.reads, RequestMetrics(metrics, config.otlp.request_metrics), clock, config.evals.settle_seconds
        )
        self.drift = DriftMonitor(
            config.drift, self.reads, self.writer, clock, metrics, np.random.default_rng(0), origin=clock.now()
        )
        self.followers = Followers(self.database)
        self.gauges = StoreGauges(self.database, self.reads, clock, metrics, self.drift.current)

    def _app(self) -> FastAPI:
        context = Context(
            reads=self.reads,
            writer=self.writer,
            clock=self.clock,
            metrics=self.metrics,
            public_url=self.config.url(),
            version=VERSION,
            render_metrics=self.served.render,
            targets=lambda: [asdict(replace(status, labels=dict(status.labels))) for status in self.scraper.statuses()],
            discovery=self.scraper.discovery,
            gpus=self.gpu.statuses,
            evaluators=lambda: [
                {"name": item.name, "version": item.version, "asks": item.asks} for item in self.runner.evaluators
            ],
            signals=lambda: [signal.model_dump(mode="json") for signal in self.config.drift.signals],
            problems=lambda: [*self._problems, *self.store_watch.problems()],
            warnings=lambda: [*self._warnings, *self.store_watch.warnings()],
            ledger=self.receiver.ledger,
            listeners=lambda: list(self._listeners.values()),
            cors_origins=self.config.otlp.cors_origins,
            withheld=self._withheld,
        )
        self.incidents = Incidents(context)
        app = build_api(context, self.keys, local_token=self._local_token)
        app.include_router(otlp_routes(self.receiver))
        self.otlp_app = build_front(context, app.state.gate)
        self.otlp_app.include_router(otlp_routes(self.receiver))
        app.include_router(recordings.router(self.recordings, app.state.gate), prefix=PREFIX)
        store_routes = exports.router(
            self.database, app.state.gate, self.clock, self.metrics, _user_key(self.config.data)
        )
        app.include_router(store_routes, prefix=PREFIX)
        return app

    def _withheld(self, tenant: str | None) -> str:
        """How content is kept, where it is not in full."""
        capture = self.config.privacy.of(tenant).capture
        return "" if capture is Capture.FULL else capture.value

    def _tap(self, recorder: Recorder | None) -> None:
        """Puts a recorder on all that arrives, or takes it off."""
        self.receiver.on_export = recorder.on_export if recorder else None
        self.scraper.ingest.on_scrape = recorder.on_scrape if recorder else None
        self.gpu.on_look = recorder.on_look if recorder else None

    # --- life -------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Opens the listeners.  Raises AddressTaken for the main one, NotSafeToListen; OTLP ports may be taken."""
        await self.listen_console()
        await self._listen_otlp_http()
        await self._listen_otlp_grpc()

    async def listen_console(self) -> None:
        """Opens the main listener alone, as a replay does.  Raises AddressTaken, NotSafeToListen."""
        self._refuse_open_doors()
        main = HttpListener(self.app, bind(self.config.listen), self._watch("http"))
        await main.start()
        self._http.append(main)
        self._up("http", True)
        self._announce()

    def _announce(self) -> None:
        """Tells commands on this machine where the service is; a full disk must not keep it from starting."""
        try:
            locate.announce(self.config.data, f"http://{self.config.listen}", self._local_token)
        except OSError as error:
            problem = f"{self.config.data}: {error.strerror}; commands on this machine do not find the service"
            LOG.warning("not_announced", extra={"problem": problem})
            self._warnings.append(problem)

    def start_loops(self) -> None:
        """Starts collecting, scoring and testing by the clock."""
        self._spawn("loop_lag", watch(self.metrics.histograms.tidegauge_event_loop_lag_seconds.observe))
        self._spawn("scrape", self.scraper.run())
        self._spawn("gpu", self.gpu.run())
        self._spawn("evals", self.runner.run())
        self._spawn("drift", self.drift.run())
        self._spawn("counting", self._every(COUNT_EVERY_SECONDS, "counting", self.counting.step))
        for endpoint in self.remote_writers:
            self._spawn("remote_write", endpoint.run())
        self._spawn("recordings", self.recordings.run())
        self._spawn("followers", self._every(FOLLOW_EVERY_SECONDS, "followers", self.followers.step))
        self._spawn("store", self._every(STORE_EVERY_SECONDS, "store", self.store_watch.step))
        self._spawn("gauges", self._every(GAUGES_EVERY_SECONDS, "gauges", self.gauges.step))

    async def stop(self) -> None:
        """Stops taking in, finishes what was taken, closes the store; may be called twice, or before a start."""
        if self._stopped:
            return
        self._stopped = True
        locate.withdraw(self.config.data)
        for listener in self._http:
            await listener.stop()
        await self._grpc.stop()
        await asyncio.to_thread(self.recordings.stop)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=15)
        for endpoint in self.remote_writers:
            endpoint.close()
        await self.gpu.close()
        if self.judge is not None:
            await self.judge.close()
        self.runner.close()
        self.receiver.close()
        await asyncio.to_thread(self.writer.close)
        self.database.close()

    def _refuse_open_doors(self) -> None:
        if self.config.allow_unauthenticated or self.keys.any():
            return
        for address in (self.config.listen, self.config.otlp_grpc, self.config.otlp_http):
            if not is_loopback(address):
                raise NotSafeToListen(
                    f"{address} is reached by others and there is no key; make one with 'tidegauge keys create', "
                    "or set allow_unauthenticated: true"
                )

    async def _listen_otlp_http(self) -> None:
        if self.config.otlp_http == self.config.listen:
            return
        try:
            listener = HttpListener(self.otlp_app, bind(self.config.otlp_http), self._watch("otlp_http"))
            await listener.start()
        except AddressTaken as error:
            self._missing("otlp_http", f"otlp_http: {error}; OTLP/HTTP is served on {self.config.listen} alone")
            return
        self._http.append(listener)
        self._up("otlp_http", True)

    async def _listen_otlp_grpc(self) -> None:
        try:
            await self._grpc.start()
        except AddressInUseError as error:
            self._missing("otlp_grpc", f"otlp_grpc: {error}")
            return
        self._up("otlp_grpc", True)

    def _missing(self, listener: str, problem: str) -> None:
        LOG.warning("listener_missing", extra={"listener": listener, "problem": problem})
        self._warnings.append(problem)
        self._up(listener, False, problem)

    def _up(self, listener: str, up: bool, problem: str = "") -> None:
        self.metrics.gauges.tidegauge_listener_up.labels(listener).set(float(up))
        address = {"http": self.config.listen, "otlp_http": self.config.otlp_http, "otlp_grpc": self.config.otlp_grpc}
        self._listeners[listener] = {"name": listener, "address": address[listener], "up": up, "problem": problem}

    def _watch(self, listener: str) -> Watch:
        return Watch(listener, self.metrics, self.receiver.ledger)

    def _spawn(self, name: str, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                LOG.exception("loop_ended", extra={"loop": name})
                self._problems.append(f"{name}: ended by an unexpected error; see the log")
                self.metrics.counters.tidegauge_loop_errors_total.labels(loop=name).inc()

        self._tasks.append(asyncio.create_task(guarded(), name=name))

    async def _every(self, seconds: float, name: str, step: Callable[[], None]) -> None:
        while True:
            try:
                await asyncio.to_thread(step)
            except Exception:
                LOG.exception("round_failed", extra={"loop": name})
                self.metrics.counters.tidegauge_loop_errors_total.labels(loop=name).inc()
            await self.clock.sleep(seconds)


def _user_key(directory: Path) -> bytes:
    """The key that makes user ids unreadable; made once per data directory, readable by its owner alone."""
    path = directory / "user-id.key"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    key = secrets.token_bytes(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key
