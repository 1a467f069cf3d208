"""What the tests of OTLP ingest share: recorded requests, and a reading of them that knows nothing of our code."""

import base64
import gzip
import json
import lzma
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from catalog.instruments import Instruments

DATA = Path(__file__).parent.parent / "data" / "otlp"
KEY = b"0123456789abcdef"
# Minutes after the last span of the recordings.
RECORDED_NOW = 1_795_470_000.0
KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
EPOCH = datetime.fromtimestamp(0, UTC)


class FixedClock:
    """A clock that stands where it was put."""

    def __init__(self, seconds: float = RECORDED_NOW) -> None:
        self.seconds = seconds

    def now(self) -> float:
        """Unix time."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.seconds += seconds


@cache
def production_bodies() -> tuple[bytes, ...]:
    """The recorded requests of the applications and their engine, in order."""
    with lzma.open(DATA / "production.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        return tuple(archive.extractfile(member).read() for member in archive)  # type: ignore[union-attr]


@cache
def body(name: str) -> bytes:
    """One of the gzipped recordings, e.g. clients/langfuse.pb.gz."""
    return gzip.decompress((DATA / name).read_bytes())


def requests(bodies: Iterator[bytes] | tuple[bytes, ...]) -> Iterator[ExportTraceServiceRequest]:
    for raw in bodies:
        yield ExportTraceServiceRequest.FromString(raw)


def spans_of(request: ExportTraceServiceRequest) -> Iterator[tuple[Resource, InstrumentationScope, Span]]:
    """Every span with its resource and scope."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield resource_spans.resource, scope_spans.scope, span


def scalar(attributes: Any, key: str) -> Any:
    """The attribute as protobuf has it, the first element of a list; None if absent."""
    for attribute in attributes:
        if attribute.key == key:
            value = attribute.value
            if value.HasField("array_value"):
                value = value.array_value.values[0]
            return getattr(value, value.WhichOneof("value"))
    return None


def rows(table: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows by trace and span id."""
    return {(row["trace_id"], row["span_id"]): row for row in table.to_pylist()}


def counted(metrics: Instruments, family: str, **labels: str) -> float:
    """The value of a sample; 0 where it is absent."""
    return metrics.registry.get_sample_value(family, labels) or 0.0


def _value(data: Any) -> AnyValue:
    if data is None:
        return AnyValue()
    if isinstance(data, bool):
        return AnyValue(bool_value=data)
    if isinstance(data, int):
        return AnyValue(int_value=data)
    if isinstance(data, float):
        return AnyValue(double_value=data)
    if isinstance(data, str):
        return AnyValue(string_value=data)
    made = AnyValue()
    if isinstance(data, list):
        made.array_value.SetInParent()
        made.array_value.values.extend(_value(item) for item in data)
        return made
    if set(data) == {"$bytes"}:
        return AnyValue(bytes_value=base64.b64decode(data["$bytes"]))
    if set(data) == {"$double"}:
        return AnyValue(double_value=float(data["$double"]))
    made.kvlist_value.SetInParent()
    made.kvlist_value.values.extend(pairs(data))
    return made


def pairs(data: dict[str, Any]) -> list[KeyValue]:
    """A JSON object of `attributes` as protobuf attributes."""
    entries = data["$map"] if set(data) == {"$map"} else data.items()
    return [KeyValue(key=key, value=_value(value)) for key, value in entries]


def rebuilt(row: dict[str, Any]) -> tuple[Resource, InstrumentationScope, Span]:
    """The span as it was sent, from its row alone; hashed user ids stay hashed ({"$hashed": ...} maps)."""
    kept = json.loads(row["attributes"])
    start = kept.get("start_unix_nano") or (row["start_time"] - EPOCH) // timedelta(microseconds=1) * 1000
    end = kept.get("end_unix_nano") or (row["end_time"] - EPOCH) // timedelta(microseconds=1) * 1000
    span = Span(
        trace_id=bytes.fromhex(row["trace_id"]),
        span_id=bytes.fromhex(row["span_id"]),
        parent_span_id=bytes.fromhex(row["parent_span_id"] or ""),
        name=row["name"],
        kind=KINDS.get(kept.get("kind", ""), 0),
        flags=kept.get("flags", 0),
        trace_state=kept.get("trace_state", ""),
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        attributes=pairs(kept["span"]),
        dropped_attributes_count=kept.get("dropped_attributes", 0),
        dropped_events_count=kept.get("dropped_events", 0),
        dropped_links_count=kept.get("dropped_links", 0),
    )
    for key, column in kept.get("moved", {}).items():
        span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=row[column])))
    span.status.code = {"OK": 1, "ERROR": 2}.get(kept.get("status_code", ""), 0)
    if row["status_message"] and "status_message_from_attribute" not in kept:
        span.status.message = row["status_message"]
    for event in kept.get("events", ()):
        times = event["after_start_ns"]
        for after in times if isinstance(times, list) else [times]:
            span.events.add(
                name=event["name"],
                time_unix_nano=start + after,
                attributes=pairs(event.get("attributes", {})),
                dropped_attributes_count=event.get("dropped_attributes", 0),
            )
    for link in kept.get("links", ()):
        span.links.add(
            trace_id=bytes.fromhex(link.get("trace_id", "")),
            span_id=bytes.fromhex(link.get("span_id", "")),
            trace_state=link.get("trace_state", ""),
            attributes=pairs(link.get("attributes", {})),
            dropped_attributes_count=link.get("dropped_attributes", 0),
            flags=link.get("flags", 0),
        )
    scope = kept["scope"]
    return (
        Resource(
            attributes=pairs(kept["resource"]), dropped_attributes_count=kept.get("resource_dropped_attributes", 0)
        ),
        InstrumentationScope(
            name=scope.get("name", ""),
            version=scope.get("version", ""),
            attributes=pairs(scope.get("attributes", {})),
            dropped_attributes_count=scope.get("dropped_attributes", 0),
        ),
        span,
    )


USER_KEYS = {
    "user.id",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
}


def comparable(resource: Resource, scope: InstrumentationScope, span: Span) -> dict[str, Any]:
    """For comparison: attributes without order, and without the users' ids."""
    bare = Span()
    bare.CopyFrom(span)
    del bare.attributes[:]
    if bare.status == type(bare.status)():
        bare.ClearField("status")
    return {
        "attributes": sorted(str(item) for item in span.attributes if item.key not in USER_KEYS),
        "resource": str(resource),
        "scope": str(scope),
        "rest": str(bare),
    }
