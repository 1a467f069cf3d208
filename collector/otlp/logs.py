"""`/v1/logs`: what records say of spans goes to the spans, evaluations to the scores, the records to `log_records`."""

from concurrent.futures import Future
from dataclasses import replace

import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.evaluations import Subjects, score_rows, score_table
from collector.otlp.handler import Submit, Submitted, Transform
from collector.otlp.ledger import Ledger, Tally, services
from collector.otlp.log_decode import NOT_KEPT, REASONS, DecodedLogs, Evaluation, LogDecoder
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import parse
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.otlp.tenancy import REASONS as TENANCY_REASONS
from collector.otlp.tenancy import bind, claimed
from store.batch import Batch, Committed
from store.writer import StoreOverloaded

STATUSES = ("stored", "duplicate", "rejected", "discarded", "overloaded", "failed")


class LogHandler:
    """Decodes log records and submits them.

    `key` makes user ids unreadable; `subjects` finds what an evaluation is about.
    Records received = stored + duplicate + rejected + discarded + overloaded + failed.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        submit: Submit,
        clock: Clock,
        metrics: Instruments,
        ledger: Ledger,
        key: bytes,
        subjects: Subjects,
        transform: Transform | None = None,
    ) -> None:
        self._settings = settings
        self._submit = submit
        self._clock = clock
        self._metrics = metrics
        self._ledger = ledger
        self._subjects = subjects
        self._transform = transform
        self._decoder = LogDecoder(settings, key)

    def handle(self, body: bytes, media: str, sender: Sender) -> ExportOutcome | Submitted:
        """Raises what `parse` and `submit` raise."""
        request = parse(body, media, ExportLogsServiceRequest)
        if self._transform is not None:
            self._transform(request)
        now = self._clock.now()
        decoded = self._decoder.decode(request, body, now)
        records = self._bound(decoded, sender)
        tally = self._received(decoded, records, request, sender)
        if not records.num_rows:
            return _answer(decoded, 0, None)
        try:
            future = self._submit(self._batch(decoded, records, sender, now))
        except Exception as error:
            tally.ended(records, {"overloaded" if isinstance(error, StoreOverloaded) else "failed": records.num_rows})
            raise
        # Counted where the commit is, so that a sender who hangs up changes nothing.
        future.add_done_callback(lambda done: self._count_commit(decoded, records, tally, done))
        return Submitted(future, lambda committed: _answer(decoded, records.num_rows, committed))

    def _bound(self, decoded: DecodedLogs, sender: Sender) -> pa.Table:
        """The records that the sender's key is for; the others are left out."""
        bound = bind(decoded.records(), sender.tenants, self._settings.tenant_mismatch)
        decoded.left_out.update(bound.rejected)
        if bound.overridden:
            self._metrics.counters.tidegauge_ingest_tenant_overridden_total.labels("logs").inc(bound.overridden)
            self._ledger.noted(sender, Signal.LOGS, {"overridden: tenant": bound.overridden})
        return bound.table

    def _received(
        self, decoded: DecodedLogs, records: pa.Table, request: ExportLogsServiceRequest, sender: Sender
    ) -> Tally:
        counters = self._metrics.counters
        tally = Tally(self._ledger, sender, Signal.LOGS, counters.tidegauge_ingest_log_records_total)
        tally.received(
            records.num_rows,
            {
                reason: ("discarded" if reason in NOT_KEPT else "rejected", count)
                for reason, count in decoded.left_out.items()
            },
            counters.tidegauge_ingest_left_out_log_records_total,
            services(item.resource for item in request.resource_logs) if decoded.left_out else (),
        )
        return tally

    def _batch(self, decoded: DecodedLogs, records: pa.Table, sender: Sender, now: float) -> Batch:
        """The parts after their records: the store drops those of known records."""
        parts = bind(decoded.parts(), sender.tenants, self._settings.tenant_mismatch).table
        tables = {"log_records": records, "span_contents": parts}
        scores = score_rows(self._evaluations(decoded, sender), self._subjects, now)
        outcomes = self._metrics.counters.tidegauge_content_events_total
        outcomes.labels("unclaimed").inc(len(decoded.evaluations) - len(scores))
        if scores:
            tables["scores"] = score_table(scores)
        return Batch({name: table for name, table in tables.items() if table.num_rows})

    def _evaluations(self, decoded: DecodedLogs, sender: Sender) -> list[Evaluation]:
        kept = []
        for item in decoded.evaluations:
            tenant, refused = claimed(item.columns.get("tenant"), sender.tenants, self._settings.tenant_mismatch)
            if not refused:
                kept.append(replace(item, columns={**item.columns, "tenant": tenant}))
        return kept

    def _count_commit(self, decoded: DecodedLogs, records: pa.Table, tally: Tally, future: "Future[Committed]") -> None:
        if future.cancelled() or future.exception() is not None:
            tally.ended(records, {"failed": records.num_rows})
            return
        committed = future.result()
        stored, duplicates = (of.get("log_records", 0) for of in (committed.rows, committed.duplicates))
        tally.ended(records, {"stored": stored, "duplicate": duplicates})
        self._metrics.counters.tidegauge_ingest_truncated_attributes_total.inc(decoded.truncated)


def _answer(decoded: DecodedLogs, kept: int, committed: Committed | None) -> ExportOutcome:
    left_out = decoded.left_out.total()
    message = ""
    if left_out:
        words = {**REASONS, **NOT_KEPT, **TENANCY_REASONS}
        reasons = "; ".join(f"{count}: {words[reason]}" for reason, count in sorted(decoded.left_out.items()))
        message = f"{left_out} of {left_out + kept} log records not stored: {reasons}"
    elif decoded.truncated:
        message = f"{decoded.truncated} attributes were longer than allowed, and cut"
    return ExportOutcome(
        Outcome.PARTIAL if left_out else Outcome.ACCEPTED,
        message,
        Signal.LOGS,
        stored=committed.rows.get("log_records", 0) if committed else 0,
        duplicates=committed.duplicates.get("log_records", 0) if committed else 0,
        rejected=left_out,
    )
