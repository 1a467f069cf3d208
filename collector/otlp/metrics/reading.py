"""From an OTLP metrics request to points that are served; says of each what became of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    Metric,
    ResourceMetrics,
    ScopeMetrics,
)

from collector.exposition.model import Labels
from collector.otlp.attributes import plain
from collector.otlp.conversions import hidden
from collector.otlp.metrics.naming import label_name, labels_of, metric_name, value_text
from collector.otlp.metrics.points import READERS, Buckets, DroppedPointError
from collector.otlp.metrics.registry import Described, OtlpSeries, Source
from collector.otlp.metrics.series import DUPLICATE, Point
from collector.otlp.settings import OtlpSettings

SERVED = "served"
IDENTITY = ("service.name", "service.namespace", "service.instance.id")
HISTOGRAM_LABELS, SUMMARY_LABELS, NO_LABELS = frozenset({"le"}), frozenset({"quantile"}), frozenset[str]()
MAX_HELP = 500
# The tenant that a resource's points count for, or the reason for which they are refused.
Tenant = Callable[[str | None], tuple[str | None, str]]


@dataclass
class Fates:
    """What became of the points of a request; reasons are keys of REASONS in registry.py, or the tenancy's."""

    statuses: Counter[str] = field(default_factory=Counter)  # served, duplicate
    left_out: Counter[str] = field(default_factory=Counter)  # reason: points
    sources: list[tuple[str, str, str]] = field(default_factory=list)  # tenant, job and scope of each accepted point

    def add(self, fate: str, source: tuple[str, str, str]) -> None:
        """Counts a point."""
        if fate in (SERVED, DUPLICATE):
            self.statuses[fate] += 1
            self.sources.append(source)
        else:
            self.left_out[fate] += 1


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all points of a metric share."""

    metric: Described
    reader: str
    delta: bool


class MetricReader:
    """Reads requests into the series; holds nothing between them."""

    def __init__(self, settings: OtlpSettings, key: bytes, series: OtlpSeries) -> None:
        self._settings = settings
        self._key = key
        self._series = series

    def read(self, request: ExportMetricsServiceRequest, now: float, tenant: Tenant) -> Fates:
        """Serves the request's points; `now` is Unix time."""
        fates = Fates()
        for resource_metrics in request.resource_metrics:
            source, refused = self._source(resource_metrics, tenant)
            for scope_metrics in resource_metrics.scope_metrics:
                reserved = {**_identity(source), **_scope(scope_metrics)}
                for metric in scope_metrics.metrics:
                    for fate in self._fates(metric, source, reserved, now, refused):
                        fates.add(fate, (source.tenant, source.job, scope_metrics.scope.name))
        return fates

    def _source(self, resource_metrics: ResourceMetrics, tenant: Tenant) -> tuple[Source, str]:
        attributes = {item.key: plain(item.value) for item in resource_metrics.resource.attributes}
        said = next((str(attributes[key]) for key in self._settings.tenant_keys if attributes.get(key)), None)
        own, refused = tenant(said)
        name, namespace, instance = (str(attributes.get(key) or "") for key in IDENTITY)
        job = f"{namespace}/{name}" if namespace and name else name
        bare = Source(own or "", job, instance)
        rest = [(key, self._shown(key, value)) for key, value in attributes.items() if key not in IDENTITY]
        limits = self._settings.metrics
        info = labels_of(rest[: limits.max_labels], _identity(bare), limits.max_label_characters, NO_LABELS)
        # The specification has no info of a target that says nothing but who it is, or not even that.
        worth = bool(rest) and bool(job or instance)
        return Source(own or "", job, instance, info if worth else ()), refused

    def _shown(self, key: str, value: Any) -> Any:
        """A value as a label may have it: the id of a user is none."""
        made = hidden(key, value, self._key)
        return made["$hashed"] if isinstance(made, dict) and "$hashed" in made else made

    def _fates(
        self, metric: Metric, source: Source, reserved: Mapping[str, str], now: float, refused: str
    ) -> Iterator[str]:
        data = metric.WhichOneof("data")
        if data is None:
            return
        shape = _shape(metric, data)
        for point in getattr(metric, data).data_points:
            try:
                if refused or isinstance(shape, str):
                    raise DroppedPointError(refused or shape)
                yield self._one(shape, point, source, reserved, now)
            except DroppedPointError as error:
                yield str(error)
            except (ValueError, TypeError, RecursionError, OverflowError):
                # One point that nobody foresaw must not take the others of its request with it.
                yield "malformed"

    def _one(self, shape: _Shape, point: Any, source: Source, reserved: Mapping[str, str], now: float) -> str:
        labels = self._labels(shape, point, reserved)
        if point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
            self._series.forget(shape.metric, labels)
            return SERVED
        self._check_time(point.time_unix_nano, now)
        value = READERS[shape.reader](point)
        if isinstance(value, Buckets) and len(value.counts) > self._settings.metrics.max_buckets:
            raise DroppedPointError("too_many_buckets")
        made = Point(point.start_time_unix_nano, point.time_unix_nano, value, shape.delta)
        self._series.put(source, shape.metric, labels, made)
        return SERVED

    def _labels(self, shape: _Shape, point: Any, reserved: Mapping[str, str]) -> Labels:
        limits = self._settings.metrics
        if len(point.attributes) > limits.max_labels:
            raise DroppedPointError("too_many_labels")
        special = {"histogram": HISTOGRAM_LABELS, "summary": SUMMARY_LABELS}.get(shape.metric.kind, NO_LABELS)
        pairs = [(item.key, self._shown(item.key, plain(item.value))) for item in point.attributes]
        return labels_of(pairs, reserved, limits.max_label_characters, special)

    def _check_time(self, nanoseconds: int, now: float) -> None:
        if nanoseconds / 1e9 < now - self._settings.max_age_seconds:
            raise DroppedPointError("too_old")
        if nanoseconds / 1e9 > now + self._settings.max_future_seconds:
            raise DroppedPointError("in_the_future")


def _shape(metric: Metric, data: str) -> _Shape | str:
    """How the metric is served, or the reason why it is not."""
    kind = reader = {"exponential_histogram": "histogram"}.get(data, data)
    if data == "sum":
        kind = reader = "counter" if metric.sum.is_monotonic else "gauge"
    elif data == "exponential_histogram":
        reader = data
    temporality = getattr(getattr(metric, data), "aggregation_temporality", None)
    delta = temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    unsaid = temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_UNSPECIFIED
    if unsaid or (delta and data == "sum" and kind == "gauge"):
        return "temporality"
    name, unit = metric_name(metric.name, metric.unit, kind)
    if not name:
        return "malformed"
    text = metric.description[:MAX_HELP].encode("utf-8", "replace").decode()
    return _Shape(Described(name, kind, unit, text), reader, delta)


def _identity(source: Source) -> dict[str, str]:
    return {"job": source.job, "instance": source.instance, "tenant": source.tenant}


def _scope(scope_metrics: ScopeMetrics) -> dict[str, str]:
    scope = scope_metrics.scope
    attributes = {"otel_scope_" + label_name(item.key): value_text(plain(item.value)) for item in scope.attributes}
    return {
        **attributes,
        "otel_scope_name": scope.name,
        "otel_scope_version": scope.version,
        "otel_scope_schema_url": scope_metrics.schema_url,
    }
