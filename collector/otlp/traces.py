"""`/v1/traces`: spans to the store, each counted with what became of it."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.decode import REASONS, Decoded, Decoder
from collector.otlp.handler import Submit, Submitted, Transform
from collector.otlp.ledger import Ledger, Tally, services
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import parse
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.otlp.tenancy import REASONS as TENANCY_REASONS
from collector.otlp.tenancy import bind
from store.batch import Batch, Committed
from store.writer import StoreOverloaded


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
        ledger: Ledger,
        key: bytes,
        transform: Transform | None = None,
    ) -> None:
        self._settings = settings
        self._submit = submit
        self._clock = clock
        self._metrics = metrics
        self._ledger = ledger
        self._decoder = Decoder(settings, key)
        self._transform = transform
        for status in ("stored", "duplicate", "rejected", "overloaded", "failed"):
            metrics.counters.tidegauge_ingest_spans_total.labels(status)

    def handle(self, body: bytes, media: str, sender: Sender) -> ExportOutcome | Submitted:
        """Raises what `parse` and `submit` raise."""
        request = parse(body, media, ExportTraceServiceRequest)
        if self._transform is not None:
            self._transform(request)
        decoded = self._bound(self._decoder.decode(request, self._clock.now()), sender)
        tally = self._received(decoded, request, sender)
        table = decoded.table
        if not table.num_rows:
            return _answer(decoded, None)
        try:
            future = self._submit(Batch({"spans": table}))
        except Exception as error:
            tally.ended(table, {"overloaded" if isinstance(error, StoreOverloaded) else "failed": table.num_rows})
            raise
        # Counted where the commit is, so that a sender who hangs up changes nothing.
        future.add_done_callback(lambda done: self._count_commit(decoded, tally, done))
        return Submitted(future, lambda committed: _answer(decoded, committed))

    def _bound(self, decoded: Decoded, sender: Sender) -> Decoded:
        """Without the spans that the sender's key is not for."""
        bound = bind(decoded.table, sender.tenants, self._settings.tenant_mismatch)
        if bound.overridden:
            self._metrics.counters.tidegauge_ingest_tenant_overridden_total.labels("traces").inc(bound.overridden)
            self._ledger.noted(sender, Signal.TRACES, {"overridden: tenant": bound.overridden})
        return replace(decoded, table=bound.table, rejected={**decoded.rejected, **bound.rejected})

    def _received(self, decoded: Decoded, request: ExportTraceServiceRequest, sender: Sender) -> Tally:
        def names() -> Iterator[str]:
            return services(item.resource for item in request.resource_spans)

        counters = self._metrics.counters
        tally = Tally(self._ledger, sender, Signal.TRACES, counters.tidegauge_ingest_spans_total)
        tally.received(
            decoded.table.num_rows,
            {reason: ("rejected", count) for reason, count in decoded.rejected.items()},
            counters.tidegauge_ingest_rejected_spans_total,
            names() if decoded.rejected else (),
        )
        if decoded.truncated:
            self._ledger.noted(sender, Signal.TRACES, {"truncated: attributes": decoded.truncated}, names())
        return tally

    def _count_commit(self, decoded: Decoded, tally: Tally, future: "Future[Committed]") -> None:
        if future.cancelled() or future.exception() is not None:
            tally.ended(decoded.table, {"failed": decoded.table.num_rows})
            return
        committed = future.result()
        tally.ended(
            decoded.table,
            {"stored": committed.rows.get("spans", 0), "duplicate": committed.duplicates.get("spans", 0)},
        )
        self._metrics.counters.tidegauge_ingest_truncated_attributes_total.inc(decoded.truncated)
        if decoded.latest_end is not None:
            self._metrics.gauges.tidegauge_ingest_lag_seconds.set(self._clock.now() - decoded.latest_end)


def _answer(decoded: Decoded, committed: Committed | None) -> ExportOutcome:
    rejected = decoded.rejections()
    message = ""
    if rejected:
        words = {**REASONS, **TENANCY_REASONS}
        reasons = "; ".join(f"{count}: {words[reason]}" for reason, count in sorted(decoded.rejected.items()))
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
