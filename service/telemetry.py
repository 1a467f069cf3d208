"""Tidegauge's own traces: scrape rounds, commits, eval runs and judge calls, exported where configured."""

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service.version import VERSION

if TYPE_CHECKING:  # older FastAPI has nothing to switch off, and takes the argument all the same
    from fastapi.telemetry import TelemetryConfig

# The store leaves commits that hold nothing but spans of this service untraced: no echo.
SERVICE_NAME = "tidegauge"
# FastAPI would trace every request by itself: three spans for each export received, and those of an own export that
# comes back over HTTP, from a collector, would be exported again, for ever.
FASTAPI: "TelemetryConfig" = {"tracing": False, "metrics": False, "logs": False}


def start(endpoint: str | None) -> TracerProvider | None:
    """Sends own spans to an OTLP/gRPC endpoint; without one, tracing costs nothing."""
    if endpoint is None:
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME, "service.version": VERSION}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider
