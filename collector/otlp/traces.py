"""`/v1/traces`: spans to the store, each counted with what became of it."""

from collections.abc import Callable
from concurrent.futures import Future

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.decode import REASONS, Decoded, Decoder
from collector.otlp.handler import Submit, Submitted
from collector.otlp.outcome import ExportOutcome, Outcome
from collector.otlp.parse import parse
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded

Transform = Callable[[ExportTraceServiceRequest], None]


class TraceHandler:
    """Decodes spans and submits them.

    `key` makes user ids unreadable; `transform` may change a request before it is decoded (the replay moves its
    times).  Spans received = stored + duplicate + rejected + overloaded + failed.
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
        self._submit = submit
        self._clock = clock
        self._metrics = metrics
        self._decoder = Decoder(settings, key)
        self._transform = transform
        for status in ("stored", "duplicate", "rejected", "overloaded", "failed"):
            metrics.counters.tidegauge_ingest_spans_total.labels(status)

    def handle(self, body: bytes, media: str) -> ExportOutcome | Submitted:
        """Raises what `parse` and `submit` raise."""
        request = parse(body, media, ExportTraceServiceRequest)
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
        return Submitted(future, lambda committed: _answer(decoded, committed))

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
