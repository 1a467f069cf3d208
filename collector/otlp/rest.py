"""What the columns of `spans` do not hold, for `attributes`; docs/tracing.md says in which form."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from collector.otlp.attributes import Json, encode, mapping

SPAN_KINDS = {0: "UNSPECIFIED", 1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
STATUS_CODES = {1: "OK", 2: "ERROR"}
Offered = dict[str, tuple[int, list[Mapping[str, Any]]]]


def events_of(span: Span, failed: bool) -> tuple[list[Json], Offered]:
    """The events for `attributes`, and what they offer to the columns: first time and attributes by name.

    A stream has an empty event for each chunk: a run of them is kept as one, with a list of times.
    """
    start = span.start_time_unix_nano
    kept: list[Json] = []
    offered: Offered = {}
    run: list[int] = []
    run_name: str | None = None
    for event in span.events:
        name, time = event.name, event.time_unix_nano
        if not event.attributes and not event.dropped_attributes_count:
            if name == run_name:
                run.append(time - start)
            else:
                run_name, run = name, [time - start]
                kept.append({"name": name, "after_start_ns": run})
            if name not in offered:
                offered[name] = (time, [])
            continue
        run_name = None
        attributes = mapping(event.attributes)
        entry = {"name": name, "after_start_ns": time - start, "attributes": attributes}
        if event.dropped_attributes_count:
            entry["dropped_attributes"] = event.dropped_attributes_count
        kept.append(entry)
        offered.setdefault(name, (time, []))[1].append(attributes)
    if not failed:
        # An exception that was caught is no failure of the call.
        offered.pop("exception", None)
    return kept, offered


def rest_of(span: Span) -> dict[str, Json]:
    """What a span has besides attributes and events; only what is not empty."""
    start, end, status = span.start_time_unix_nano, span.end_time_unix_nano, span.status.code
    rest: dict[str, Json] = {"kind": SPAN_KINDS.get(span.kind, span.kind)}
    if flags := span.flags:
        rest["flags"] = flags
    if trace_state := span.trace_state:
        rest["trace_state"] = trace_state
    if dropped := span.dropped_attributes_count:
        rest["dropped_attributes"] = dropped
    if dropped := span.dropped_events_count:
        rest["dropped_events"] = dropped
    if dropped := span.dropped_links_count:
        rest["dropped_links"] = dropped
    if status:
        # The column counts an unset status as ok.
        rest["status_code"] = STATUS_CODES.get(status, status)
    # The columns have microseconds.
    if start % 1000:
        rest["start_unix_nano"] = start
    if end % 1000:
        rest["end_unix_nano"] = end
    if links := span.links:
        rest["links"] = [_link(link) for link in links]
    return rest


def tail_of(resource: Json, resource_spans: ResourceSpans, scope_spans: ScopeSpans) -> bytes:
    """The end of the JSON text, which all spans of a scope share: resource and scope."""
    scope = scope_spans.scope
    whole: dict[str, Json] = {
        "name": scope.name,
        "version": scope.version,
        "attributes": mapping(scope.attributes),
        "dropped_attributes": scope.dropped_attributes_count,
        "schema_url": scope_spans.schema_url,
    }
    tail: dict[str, Json] = {"resource": resource, "scope": {key: value for key, value in whole.items() if value}}
    if resource_spans.schema_url:
        tail["resource_schema_url"] = resource_spans.schema_url
    if resource_spans.resource.dropped_attributes_count:
        tail["resource_dropped_attributes"] = resource_spans.resource.dropped_attributes_count
    entities = [MessageToDict(entity) for entity in resource_spans.resource.entity_refs]
    if entities:
        tail["resource_entities"] = entities
    return b"," + encode(tail)[1:]


def _link(link: Span.Link) -> Json:
    whole: dict[str, Json] = {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "trace_state": link.trace_state,
        "attributes": mapping(link.attributes),
        "dropped_attributes": link.dropped_attributes_count,
        "flags": link.flags,
    }
    return {key: value for key, value in whole.items() if value}
