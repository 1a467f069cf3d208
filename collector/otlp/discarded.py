"""Signals that are taken, so that SDKs do not log an error a minute for ever, and not kept, which we say."""

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from catalog.instruments import Instruments
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import parse
from collector.otlp.sender import Sender


class DiscardHandler:
    """Counts what it does not keep."""

    def __init__(self, signal: Signal, metrics: Instruments) -> None:
        self._signal = signal
        self._metrics = metrics
        self._message: type[Message] = (
            ExportLogsServiceRequest if signal is Signal.LOGS else ExportMetricsServiceRequest
        )

    def handle(self, body: bytes, media: str, sender: Sender) -> ExportOutcome:
        """Partial success for whatever comes."""
        signal = self._signal
        count = _records(parse(body, media, self._message))
        self._metrics.counters.tidegauge_ingest_discarded_total.labels(signal.value).inc(count)
        if not count:
            return ExportOutcome(Outcome.ACCEPTED, signal=signal)
        message = (
            f"Tidegauge does not keep OTLP {signal}; send traces alone, or set the SDK's {signal} exporter to none"
        )
        return ExportOutcome(Outcome.PARTIAL, message, signal, rejected=count)


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
