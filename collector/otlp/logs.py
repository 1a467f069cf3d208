"""`/v1/logs`: what records say of spans goes to the spans, evaluations to the scores, the records to `log_records`."""

from concurrent.futures import Future

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.evaluations import Subjects, score_rows, score_table
from collector.otlp.handler import Submit, Submitted
from collector.otlp.log_decode import NOT_KEPT, REASONS, DecodedLogs, LogDecoder
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import parse
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded

STATUSES = ("stored", "duplicate", "rejected", "discarded", "overloaded", "failed")


class LogHandler:
    """Decodes log records and submits them.

    `key` makes user ids unreadable; `subjects` finds what an evaluation is about.
    Records received = stored + duplicate + rejected + discarded + overloaded + failed.
    """

    def __init__(
        self, settings: OtlpSettings, submit: Submit, clock: Clock, metrics: Instruments, key: bytes, subjects: Subjects
    ) -> None:
        self._submit = submit
        self._clock = clock
        self._metrics = metrics
        self._subjects = subjects
        self._decoder = LogDecoder(settings, key)

    def handle(self, body: bytes, media: str) -> ExportOutcome | Submitted:
        """Raises what `parse` and `submit` raise."""
        request = parse(body, media, ExportLogsServiceRequest)
        now = self._clock.now()
        decoded = self._decoder.decode(request, body, now)
        self._count_left_out(decoded)
        if not decoded.rows:
            return _answer(decoded, None)
        try:
            future = self._submit(self._batch(decoded, now))
        except Exception as error:
            self._count("overloaded" if isinstance(error, StoreOverloaded) else "failed", len(decoded.rows))
            raise
        # Counted where the commit is, so that a sender who hangs up changes nothing.
        future.add_done_callback(lambda done: self._count_commit(decoded, done))
        return Submitted(future, lambda committed: _answer(decoded, committed))

    def _batch(self, decoded: DecodedLogs, now: float) -> Batch:
        """The parts after their records: the store drops those of known records."""
        tables = {"log_records": decoded.records(), "span_contents": decoded.parts()}
        scores = score_rows(decoded.evaluations, self._subjects, now)
        outcomes = self._metrics.counters.tidegauge_content_events_total
        outcomes.labels("unclaimed").inc(len(decoded.evaluations) - len(scores))
        if scores:
            tables["scores"] = score_table(scores)
        return Batch({name: table for name, table in tables.items() if table.num_rows})

    def _count(self, status: str, records: int) -> None:
        self._metrics.counters.tidegauge_ingest_log_records_total.labels(status).inc(records)

    def _count_left_out(self, decoded: DecodedLogs) -> None:
        for reason, count in decoded.left_out.items():
            self._metrics.counters.tidegauge_ingest_left_out_log_records_total.labels(reason).inc(count)
            self._count("rejected" if reason in REASONS else "discarded", count)

    def _count_commit(self, decoded: DecodedLogs, future: "Future[Committed]") -> None:
        if future.cancelled() or future.exception() is not None:
            self._count("failed", len(decoded.rows))
            return
        committed = future.result()
        self._count("stored", committed.rows.get("log_records", 0))
        self._count("duplicate", committed.duplicates.get("log_records", 0))
        self._metrics.counters.tidegauge_ingest_truncated_attributes_total.inc(decoded.truncated)


def _answer(decoded: DecodedLogs, committed: Committed | None) -> ExportOutcome:
    left_out = decoded.left_out.total()
    message = ""
    if left_out:
        words = {**REASONS, **NOT_KEPT}
        reasons = "; ".join(f"{count}: {words[reason]}" for reason, count in sorted(decoded.left_out.items()))
        message = f"{left_out} of {left_out + len(decoded.rows)} log records not stored: {reasons}"
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
