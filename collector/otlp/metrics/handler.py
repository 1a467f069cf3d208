"""`/v1/metrics`: points to the series that are served on `/metrics`, each counted with what became of it.

Nothing is stored: Prometheus keeps the series.
"""

import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.otlp.handler import Transform
from collector.otlp.ledger import Ledger, Tally, services
from collector.otlp.metrics.reading import Fates, MetricReader
from collector.otlp.metrics.registry import REASONS, OtlpSeries
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import parse
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from collector.otlp.tenancy import REASONS as TENANCY_REASONS
from collector.otlp.tenancy import claimed


class MetricHandler:
    """Reads points into `series`.  `key` makes user ids unreadable.

    Points received = served + duplicate + rejected.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        clock: Clock,
        metrics: Instruments,
        ledger: Ledger,
        key: bytes,
        series: OtlpSeries,
        transform: Transform | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._ledger = ledger
        self._transform = transform
        self._reader = MetricReader(settings, key, series)

    def handle(self, body: bytes, media: str, sender: Sender) -> ExportOutcome:
        """Raises what `parse` raises."""
        request = parse(body, media, ExportMetricsServiceRequest)
        if self._transform is not None:
            self._transform(request)
        overridden = 0

        def tenant(said: str | None) -> tuple[str | None, str]:
            nonlocal overridden
            own, refused = claimed(said, sender.tenants, self._settings.tenant_mismatch)
            overridden += bool(said and not refused and own != said)
            return own, refused

        fates = self._reader.read(request, self._clock.now(), tenant)
        if overridden:
            self._metrics.counters.tidegauge_ingest_tenant_overridden_total.labels("metrics").inc(overridden)
        self._count(fates, request, sender)
        return _answer(fates)

    def _count(self, fates: Fates, request: ExportMetricsServiceRequest, sender: Sender) -> None:
        counters = self._metrics.counters
        tally = Tally(self._ledger, sender, Signal.METRICS, counters.tidegauge_ingest_metric_points_total)
        tally.received(
            fates.statuses.total(),
            {reason: ("rejected", count) for reason, count in fates.left_out.items()},
            counters.tidegauge_ingest_left_out_metric_points_total,
            services(item.resource for item in request.resource_metrics) if fates.left_out else (),
        )
        if fates.statuses:
            columns = [list(column) for column in zip(*fates.sources, strict=True)]
            tally.ended(pa.table(dict(zip(("tenant", "service", "scope"), columns, strict=True))), fates.statuses)


def _answer(fates: Fates) -> ExportOutcome:
    left_out = fates.left_out.total()
    message = ""
    if left_out:
        words = {**REASONS, **TENANCY_REASONS}
        reasons = "; ".join(f"{count}: {words[reason]}" for reason, count in sorted(fates.left_out.items()))
        message = f"{left_out} of {left_out + fates.statuses.total()} points not served: {reasons}"
    return ExportOutcome(
        Outcome.PARTIAL if left_out else Outcome.ACCEPTED,
        message,
        Signal.METRICS,
        stored=fates.statuses["served"],
        duplicates=fates.statuses["duplicate"],
        rejected=left_out,
    )
