"""The running service as the replay drives it: the same ways in, with a recording in place of the network."""

import asyncio
from contextlib import suppress

from google.protobuf.message import Message

from collector.exposition.history import ExpositionHistory
from collector.gpu.recorded import recorded_reading
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.sender import Sender
from collector.targets import checked
from service.replay.driver import Round
from service.replay.recording import Export, FailedScrape, GpuLook, Recording, Scrape
from service.runtime import Service

SCORE_EVERY_SECONDS = 5.0
SHOW_EVERY_SECONDS = 5.0
MOST_OPEN_EXPORTS = 16
SIGNALS = {"/v1/logs": Signal.LOGS, "/v1/metrics": Signal.METRICS}


TIMES = frozenset({"start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "observed_time_unix_nano"})
# Where messages with times stand in an export request of any signal.
NESTED = frozenset(
    "resource_spans scope_spans spans events resource_logs scope_logs log_records resource_metrics scope_metrics "
    "metrics gauge sum histogram exponential_histogram summary data_points exemplars".split()
)


class TimeShift:
    """Moves the times of an export request; given to the receiver as its transform."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def __call__(self, request: Message) -> None:
        """Adds the shift to every time in the request that is said."""
        _shift(request, self.nanoseconds)


def _shift(message: Message, nanoseconds: int) -> None:
    for field, value in message.ListFields():
        if field.name in TIMES:
            setattr(message, field.name, value + nanoseconds)
        elif field.name in NESTED and field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                _shift(item, nanoseconds)


class ServiceStage:
    """Takes a recording's events into a service, and runs the service's rounds at the recording's pace."""

    def __init__(self, service: Service, recording: Recording, shift: TimeShift) -> None:
        self._service = service
        self._shift = shift
        self._targets = {name: checked(target.url, target.labels) for name, target in recording.targets.items()}
        self._gpu = {key: str(recording.gpu[word]) for key, word in GPU_NAMES.items() if word in recording.gpu}
        self.history = ExpositionHistory()
        self.refused: dict[str, int] = {}
        self._open: list[asyncio.Task[None]] = []

    def rounds(self) -> list[Round]:
        """What the service does by the recording's clock: scoring, drift, and what `/metrics` shows."""
        return [
            Round(SCORE_EVERY_SECONDS, self._score),
            Round(self._service.config.drift.round, self._drift),
            Round(SHOW_EVERY_SECONDS, self._show),
        ]

    async def export(self, export: Export, at: float, shift: float) -> None:
        """Takes in an OTLP request the way the receiver does; several share a commit, as they do in life."""
        self._shift.nanoseconds = round(shift * 1e9)
        self._open.append(asyncio.create_task(self._receive(export)))
        if len(self._open) >= MOST_OPEN_EXPORTS:
            await self._settled()

    async def _settled(self) -> None:
        """Waits until everything taken in is stored; rounds see nothing half."""
        await asyncio.gather(*self._open)
        self._open.clear()

    async def _receive(self, export: Export) -> None:
        signal = SIGNALS.get(export.path, Signal.TRACES)
        outcome = await self._service.receiver.receive(
            export.body, export.content_type, export.content_encoding, Sender("replay", path=export.path), signal
        )
        if outcome.outcome is not Outcome.ACCEPTED:
            self.refused[outcome.outcome.value] = self.refused.get(outcome.outcome.value, 0) + 1

    def scrape(self, scrape: Scrape | FailedScrape, at: float) -> None:
        """Takes in a scrape the way the scraper does."""
        ingest, target = self._service.scraper.ingest, self._targets[scrape.target]
        if isinstance(scrape, FailedScrape):
            ingest.failed(target, "connection", f"targets: {target.name}: {scrape.error}", at)
            return
        result = ingest.ingest(target, scrape.text, at)
        if result.rows is not None and result.rows.num_rows:
            self._service.engine_rows(result.rows)

    def gpu(self, look: GpuLook, at: float) -> None:
        """Takes in a GPU reading the way NVML's are."""
        with suppress(ValueError):
            self._service.gpu.take([recorded_reading(look.reading, **self._gpu)], at)

    async def _score(self, at: float) -> None:
        await self._settled()
        await self._service.runner.step()
        await asyncio.to_thread(self._service.counting.step)

    async def _drift(self, at: float) -> None:
        await self._settled()
        await self._service.drift.step(at)

    async def _show(self, at: float) -> None:
        await asyncio.to_thread(self._service.gauges.step)
        self.history.add(at, self._service.served.current(), self._service.registry)


GPU_NAMES = {"gpu": "uuid", "gpu_model": "model", "node": "node"}
