"""The frame around the signals' handlers: bounds, decompression, and an answer only after the commit.

Every transport calls `OtlpReceiver.receive`, and only translates headers and the outcome.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.evaluations import Subjects
from collector.otlp.handler import Handler, Submit, Submitted, Transform
from collector.otlp.ledger import Ledger
from collector.otlp.logs import LogHandler
from collector.otlp.metrics.handler import MetricHandler
from collector.otlp.metrics.registry import OtlpSeries
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import (
    BodyTooLargeError,
    MalformedBodyError,
    UnsupportedBodyError,
    decompress,
    media_type,
)
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.otlp.traces import TraceHandler
from store.writer import StoreOverloaded, StoreUnavailable


class Space:
    """A share of the memory that all requests together may take; given back at the end of the `with` block."""

    def __init__(self, grow: Callable[[int], None]) -> None:
        self._grow = grow
        self._held = 0

    def take(self, size: int) -> None:
        """Takes `size` bytes more; StoreOverloaded if all requests together would have too many."""
        self._grow(size)
        self._held += size

    def __enter__(self) -> "Space":
        return self

    def __exit__(self, *_: object) -> None:
        self._grow(-self._held)
        self._held = 0


def _no_subjects(_: object, __: object) -> tuple[()]:
    return ()


class OtlpReceiver:
    """Takes export requests within bounds and hands them, off the event loop, to their signal's handler.

    `submit` is the writer's; `key` and `transform` are as in every handler, `subjects` as in LogHandler.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        submit: Submit,
        clock: Clock,
        metrics: Instruments,
        key: bytes,
        transform: Transform | None = None,
        subjects: Subjects = _no_subjects,
    ) -> None:
        self.settings = settings
        self._metrics = metrics
        self.ledger = Ledger(metrics, clock)
        # What came over OTLP metrics, for who serves `/metrics`.
        self.series = OtlpSeries(settings.metrics, clock, metrics)
        self._handlers: Mapping[Signal, Handler] = {
            Signal.TRACES: TraceHandler(settings, submit, clock, metrics, self.ledger, key, transform),
            Signal.LOGS: LogHandler(settings, submit, clock, metrics, self.ledger, key, subjects, transform),
            Signal.METRICS: MetricHandler(settings, clock, metrics, self.ledger, key, self.series, transform),
        }
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="otlp-decode")
        self._lock = threading.Lock()
        self._inflight = 0
        self._closed = False
        # For a recorder: path, media type and body of each request that was taken in.
        self.on_export: Callable[[str, str, bytes], None] | None = None

    async def receive(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        sender: Sender,
        signal: Signal = Signal.TRACES,
    ) -> ExportOutcome:
        """Takes one export request as it came over the wire."""
        started = perf_counter()
        self.ledger.opened(sender)
        outcome = ExportOutcome(Outcome.INCOMPLETE, "the sender went away before its answer", signal)
        try:
            outcome = await self._outcome(body, content_type, content_encoding, sender, signal)
        finally:
            self.ledger.closed(sender, outcome)
        self._metrics.histograms.tidegauge_ingest_ack_duration_seconds.labels(sender.transport).observe(
            perf_counter() - started
        )
        return outcome

    async def _outcome(
        self, body: bytes, content_type: str | None, content_encoding: str | None, sender: Sender, signal: Signal
    ) -> ExportOutcome:
        try:
            outcome = await self._guarded(body, content_type, content_encoding, sender, signal)
        except Exception as error:
            outcome = ExportOutcome(*_failure(error), signal)
        if outcome.outcome in (Outcome.OVERLOADED, Outcome.UNAVAILABLE) and outcome.retry_after is None:
            return self.retry(outcome)
        return outcome

    def retry(self, outcome: ExportOutcome) -> ExportOutcome:
        """The outcome with the time after which to try again."""
        return ExportOutcome(
            outcome.outcome, outcome.message, outcome.signal, retry_after=self.settings.retry_after_seconds
        )

    def busy(self) -> bool:
        """Whether requests are being handled just now."""
        return self._inflight > 0

    def close(self) -> None:
        """Stops decoding; may be called twice.  What was submitted is the store's."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    def space(self) -> Space:
        """For what a transport holds before it calls `receive`."""
        return Space(self._grow)

    def _grow(self, size: int) -> None:
        with self._lock:
            # One request alone may always come, whatever the settings.
            if size > 0 and self._inflight and self._inflight + size > self.settings.max_inflight_bytes:
                raise StoreOverloaded(f"requests of {self._inflight} bytes are being handled")
            self._inflight += size
            self._metrics.gauges.tidegauge_ingest_inflight_bytes.set(self._inflight)

    async def _guarded(
        self, body: bytes, content_type: str | None, content_encoding: str | None, sender: Sender, signal: Signal
    ) -> ExportOutcome:
        """Within the bound of all bodies together."""
        settings = self.settings
        if len(body) > settings.max_request_bytes:
            raise BodyTooLargeError(f"the request has {len(body)} bytes; the limit is {settings.max_request_bytes}")
        media = media_type(content_type)
        if self._closed:
            raise StoreUnavailable("the service is shutting down")
        with self.space() as space:
            space.take(len(body))
            loop = asyncio.get_running_loop()
            done = await loop.run_in_executor(
                self._threads, self._handle, body, media, content_encoding, sender, signal, space
            )
            return await self._committed(done) if isinstance(done, Submitted) else done

    def _handle(
        self, body: bytes, media: str, encoding: str | None, sender: Sender, signal: Signal, space: Space
    ) -> ExportOutcome | Submitted:
        opened = decompress(body, encoding, self.settings.max_body_bytes)
        space.take(max(0, len(opened) - len(body)))
        done = self._handlers[signal].handle(opened, media, sender)
        if self.on_export is not None:
            self.on_export(f"/v1/{signal.value}", media, opened)
        return done

    async def _committed(self, submitted: Submitted) -> ExportOutcome:
        try:
            async with asyncio.timeout(self.settings.commit_timeout_seconds):
                # The writer goes on when the sender has gone, or has waited long enough.
                committed = await asyncio.shield(asyncio.wrap_future(submitted.future))
        except TimeoutError:
            raise StoreUnavailable("the store did not commit in time") from None
        return submitted.answer(committed)


def _failure(error: Exception) -> tuple[Outcome, str]:
    if isinstance(error, MalformedBodyError):
        return Outcome.MALFORMED, str(error)
    if isinstance(error, BodyTooLargeError):
        return Outcome.TOO_LARGE, str(error)
    if isinstance(error, UnsupportedBodyError):
        return Outcome.UNSUPPORTED, str(error)
    if isinstance(error, StoreOverloaded):
        return Outcome.OVERLOADED, f"overloaded: {error}; try again"
    if isinstance(error, StoreUnavailable):
        return Outcome.UNAVAILABLE, f"cannot store now: {error}; try again"
    # Nothing that arrives may stop the service; what nobody foresaw is told by its kind, never by its content.
    return Outcome.ERROR, f"internal error: {type(error).__name__}"
