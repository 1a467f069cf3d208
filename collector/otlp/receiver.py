"""The core of the OTLP receivers: bytes in, acknowledged only after the commit.

Every transport calls `TraceReceiver.receive`, and only translates headers and the outcome.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import cast

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.decode import REASONS, Decoded, Decoder
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import (
    BodyTooLargeError,
    MalformedBodyError,
    UnsupportedBodyError,
    decompress,
    media_type,
    parse,
)
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable

Submit = Callable[[Batch], "Future[Committed]"]
Transform = Callable[[ExportTraceServiceRequest], None]
REQUESTS: Mapping[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}


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


class TraceReceiver:
    """Decodes export requests off the event loop and hands their spans to the store.

    `submit` is the writer's; `key` makes user ids unreadable; `transform` may change a request before it is decoded
    (the replay moves its times).  Spans received = stored + duplicate + rejected + overloaded + failed.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        submit: Submit,
        clock: Clock,
        metrics: Instruments,
        key: bytes,
        transform: Transform | None = None,
    ) -> None:
        self.settings = settings
        self._submit = submit
        self._clock = clock
        self._metrics = metrics
        self._decoder = Decoder(settings, key)
        self._transform = transform
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="otlp-decode")
        self._lock = threading.Lock()
        self._inflight = 0
        self._closed = False
        for status in ("stored", "duplicate", "rejected", "overloaded", "failed"):
            metrics.counters.tidegauge_ingest_spans_total.labels(status)

    async def receive(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        transport: str,
        signal: Signal = Signal.TRACES,
    ) -> ExportOutcome:
        """Takes one export request as it came over the wire.  `transport` is a metric's label: http, grpc, replay."""
        started = perf_counter()
        try:
            outcome = await self._guarded(body, content_type, content_encoding, signal)
        except Exception as error:
            outcome = ExportOutcome(*_failure(error), signal)
        if outcome.outcome in (Outcome.OVERLOADED, Outcome.UNAVAILABLE) and outcome.retry_after is None:
            outcome = self.retry(outcome)
        self.count(transport, outcome.outcome)
        self._metrics.histograms.tidegauge_ingest_ack_duration_seconds.labels(transport).observe(
            perf_counter() - started
        )
        return outcome

    def count(self, transport: str, outcome: Outcome) -> None:
        """Counts a request; for those that a transport refuses by itself."""
        self._metrics.counters.tidegauge_ingest_requests_total.labels(transport, outcome.value).inc()

    def retry(self, outcome: ExportOutcome) -> ExportOutcome:
        """The outcome with the time after which to try again."""
        return ExportOutcome(
            outcome.outcome, outcome.message, outcome.signal, retry_after=self.settings.retry_after_seconds
        )

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
        self, body: bytes, content_type: str | None, content_encoding: str | None, signal: Signal
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
            work = self._traces if signal is Signal.TRACES else self._unsupported
            work_on = partial(work, body, media, content_encoding, signal, space)
            outcome = await loop.run_in_executor(self._threads, work_on)
            return outcome if isinstance(outcome, ExportOutcome) else await self._committed(*outcome)

    def _open(self, body: bytes, media: str, encoding: str | None, signal: Signal, space: Space) -> Message:
        opened = decompress(body, encoding, self.settings.max_body_bytes)
        space.take(max(0, len(opened) - len(body)))
        return parse(opened, media, REQUESTS[signal])

    def _traces(
        self, body: bytes, media: str, encoding: str | None, signal: Signal, space: Space
    ) -> "ExportOutcome | tuple[Decoded, Future[Committed]]":
        request = cast(ExportTraceServiceRequest, self._open(body, media, encoding, signal, space))
        if self._transform is not None:
            self._transform(request)
        decoded = self._decoder.decode(request, self._clock.now())
        spans = self._metrics.counters.tidegauge_ingest_spans_total
        spans.labels("rejected").inc(decoded.rejections())
        for reason, count in decoded.rejected.items():
            self._metrics.counters.tidegauge_ingest_rejected_spans_total.labels(reason).inc(count)
        if not decoded.table.num_rows:
            return _answer(decoded, None)
        try:
            future = self._submit(Batch({"spans": decoded.table}))
        except Exception as error:
            status = "overloaded" if isinstance(error, StoreOverloaded) else "failed"
            spans.labels(status).inc(decoded.table.num_rows)
            raise
        # Counted where the commit is, so that a sender who hangs up changes nothing.
        future.add_done_callback(lambda done: self._count_commit(decoded, done))
        return decoded, future

    async def _committed(self, decoded: Decoded, future: "Future[Committed]") -> ExportOutcome:
        try:
            async with asyncio.timeout(self.settings.commit_timeout_seconds):
                # The writer goes on when the sender has gone, or has waited long enough.
                committed = await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise StoreUnavailable("the store did not commit in time") from None
        return _answer(decoded, committed)

    def _count_commit(self, decoded: Decoded, future: "Future[Committed]") -> None:
        spans = self._metrics.counters.tidegauge_ingest_spans_total
        if future.cancelled() or future.exception() is not None:
            spans.labels("failed").inc(decoded.table.num_rows)
            return
        committed = future.result()
        spans.labels("stored").inc(committed.rows.get("spans", 0))
        spans.labels("duplicate").inc(committed.duplicates.get("spans", 0))
        self._metrics.counters.tidegauge_ingest_truncated_attributes_total.inc(decoded.truncated)
        if decoded.latest_end is not None:
            self._metrics.gauges.tidegauge_ingest_lag_seconds.set(self._clock.now() - decoded.latest_end)

    def _unsupported(
        self, body: bytes, media: str, encoding: str | None, signal: Signal, space: Space
    ) -> ExportOutcome:
        """Logs and metrics: taken, so that SDKs do not log an error a minute for ever, and not kept, which we say."""
        request = self._open(body, media, encoding, signal, space)
        count = _records(request)
        self._metrics.counters.tidegauge_ingest_discarded_total.labels(signal.value).inc(count)
        if not count:
            return ExportOutcome(Outcome.ACCEPTED, signal=signal)
        message = (
            f"Tidegauge does not keep OTLP {signal}; send traces alone, or set the SDK's {signal} exporter to none"
        )
        return ExportOutcome(Outcome.PARTIAL, message, signal, rejected=count)


def _answer(decoded: Decoded, committed: Committed | None) -> ExportOutcome:
    rejected = decoded.rejections()
    message = ""
    if rejected:
        reasons = "; ".join(f"{count}: {REASONS[reason]}" for reason, count in sorted(decoded.rejected.items()))
        message = f"{rejected} of {rejected + decoded.table.num_rows} spans rejected: {reasons}"
    elif decoded.truncated:
        message = f"{decoded.truncated} attributes were longer than allowed, and cut"
    return ExportOutcome(
        Outcome.PARTIAL if rejected else Outcome.ACCEPTED,
        message,
        stored=committed.rows.get("spans", 0) if committed else 0,
        duplicates=committed.duplicates.get("spans", 0) if committed else 0,
        rejected=rejected,
    )


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


def _records(request: Message) -> int:
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    if isinstance(request, ExportMetricsServiceRequest):
        return sum(
            len(getattr(metric, kind).data_points)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if (kind := metric.WhichOneof("data"))
        )
    return 0
