"""From an OTLP trace request to rows of `spans`.

Every attribute, event and link is kept in `attributes`; see docs/tracing.md for its form.  Only texts that a column
holds byte for byte are left out there (and named under `moved`), and user ids, which are stored hashed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from catalog.dialect import Conversion, Place, sources
from collector.otlp.attributes import Json, as_mapping, cut, dump, mapping, plain
from collector.otlp.conversions import Context, hashed
from collector.otlp.dialects import Matcher
from collector.otlp.settings import OtlpSettings
from store.tables import SPANS

# The writer's to fill.
WRITERS = frozenset({"request_id", "is_request", "commit_seq", "committed_at"})
SCHEMA = pa.schema([column for column in SPANS if column.name not in WRITERS and not column.name.startswith("engine_")])
JSON_COLUMNS = ("response_schema", "retrieved_documents", "feature_flags")
MOVABLE = ("input_messages", "output_messages", "response_schema", "retrieved_documents")
SPAN_KINDS = {0: "UNSPECIFIED", 1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
MAX_NS = 2**63 - 1
STATUS_ERROR = 2
# What a client says of an answer that has no message in it; one that captures no content says nothing.
NO_MESSAGES: tuple[Any, ...] = ("[]", [])
ANSWER_KEYS = frozenset(
    source.key for source in sources() if source.column == "output_messages" and source.place is Place.ATTRIBUTE
)
BROKE_OFF = "no_response"


REASONS: Mapping[str, str] = {
    "trace_id": "trace_id is not 16 bytes, or all zero",
    "span_id": "span_id is not 8 bytes, or all zero",
    "parent_span_id": "parent_span_id is not 8 bytes",
    "ends_before_start": "it ends before it starts",
    "too_old": "its start is absent or too long ago",
    "in_the_future": "it ends in the future",
    "unreadable": "its attributes cannot be read",
}


class RejectedSpanError(Exception):
    """A span that cannot be stored; the message is a key of REASONS."""


@dataclass(frozen=True)
class Decoded:
    """The rows of a request, and what did not become one."""

    table: pa.Table
    rejected: Mapping[str, int]  # key of REASONS: spans
    truncated: int  # attributes that were cut
    latest_end: float | None  # Unix seconds

    def rejections(self) -> int:
        """Spans that were rejected."""
        return sum(self.rejected.values())


@dataclass(slots=True)
class _Scope:
    """What all spans of a scope share."""

    name: str
    columns: Mapping[str, Any]
    tail: str  # the end of the attributes' JSON text: resource and scope


@dataclass(slots=True)
class _Batch:
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    latest_end: int = 0


class Decoder:
    """Decodes requests; holds nothing between them."""

    def __init__(self, settings: OtlpSettings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._matcher = Matcher(settings.tenant_keys)

    def decode(self, request: ExportTraceServiceRequest, now: float) -> Decoded:
        """The rows, with columns SCHEMA; `now` is Unix time."""
        batch = _Batch()
        oldest = int(max(now - self._settings.max_age_seconds, 0) * 1e9)
        newest = min(int((now + self._settings.max_future_seconds) * 1e9), MAX_NS)
        for resource_spans in request.resource_spans:
            resource, columns = self._resource(resource_spans)
            for scope_spans in resource_spans.scope_spans:
                scope = _Scope(scope_spans.scope.name, columns, _tail(resource, resource_spans, scope_spans))
                for span in scope_spans.spans:
                    self._add(batch, span, scope, oldest, newest)
        return Decoded(
            table=_table(batch.rows),
            rejected=dict(batch.rejected),
            truncated=batch.truncated,
            latest_end=batch.latest_end / 1e9 if batch.latest_end else None,
        )

    def _context(self, start_ns: int) -> Context:
        return Context(start_ns, self._settings.max_attribute_bytes, self._key)

    def _resource(self, resource_spans: ResourceSpans) -> tuple[Json, dict[str, Any]]:
        pairs = [(item.key, plain(item.value)) for item in resource_spans.resource.attributes]
        columns = self._matcher.of_resource(dict(pairs), self._context(0))
        kept = as_mapping([(key, self._hidden(key, value)) for key, value in pairs])
        return cut(kept, self._settings.max_attribute_bytes)[0], columns

    def _add(self, batch: _Batch, span: Span, scope: _Scope, oldest: int, newest: int) -> None:
        try:
            _validate(span, oldest, newest)
            row, truncated = self._row(span, scope)
        except RejectedSpanError as error:
            batch.rejected[str(error)] += 1
            return
        except (ValueError, TypeError, RecursionError, OverflowError):
            # One span that nobody foresaw must not take the others of its request with it.
            batch.rejected["unreadable"] += 1
            return
        batch.rows.append(row)
        batch.truncated += truncated
        batch.latest_end = max(batch.latest_end, span.end_time_unix_nano)

    def _row(self, span: Span, scope: _Scope) -> tuple[dict[str, Any], int]:
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        pairs = [(item.key, plain(item.value)) for item in span.attributes]
        attributes = dict(pairs)
        failed = span.status.code == STATUS_ERROR
        events, offered = _events(span, failed)
        row = self._matcher.of_span(
            span.name,
            SPAN_KINDS.get(span.kind, "UNSPECIFIED"),
            scope.name,
            attributes,
            offered,
            scope.columns,
            self._context(start),
        )
        row.setdefault("kind", "other")
        row["start_time"], row["end_time"] = start // 1000, end // 1000
        row["duration_s"] = (end - start) / 1e9
        row["trace_id"], row["span_id"] = span.trace_id.hex(), span.span_id.hex()
        row["parent_span_id"] = span.parent_span_id.hex() if any(span.parent_span_id) else None
        row["name"] = span.name
        row["scope"] = scope.name or None
        row["status"] = "error" if failed else "ok"
        if span.status.message:
            row["status_message"] = span.status.message
        if not failed and _broke_off(row, attributes):
            row["status"], row["error_type"] = "error", BROKE_OFF
        # A key that comes twice is against the specification; both values are kept.
        moved = _moved(attributes, row) if len(attributes) == len(pairs) else {}
        kept = as_mapping([(key, self._hidden(key, value)) for key, value in pairs if key not in moved])
        return row, self._keep(row, span, kept, moved, events, scope)

    def _keep(
        self,
        row: dict[str, Any],
        span: Span,
        kept: dict[str, Json],
        moved: Mapping[str, str],
        events: list[Json],
        scope: _Scope,
    ) -> int:
        """Fills `attributes` with all that the columns do not hold; says how many values had to be cut."""
        lost: dict[str, int] = {}
        limit = self._settings.max_attribute_bytes
        # Nothing in a span that is smaller than the limit can be larger than it.
        if span.ByteSize() > limit:
            kept, events = _cut_all(kept, limit, lost), [cut(event, limit)[0] for event in events]
            _cut_columns(row, limit, lost)
        rest = _rest(span, row)
        if moved:
            rest["moved"] = moved
        if lost:
            rest["truncated"] = lost
        if events:
            rest["events"] = events
        more = "," + dump(rest)[1:-1] if rest else ""
        row["attributes"] = f'{{"span":{dump(kept)}{more}{scope.tail}'
        return len(lost)

    def _hidden(self, key: str, value: Json) -> Json:
        """The value, hashed if it is the id of a user."""
        if key not in _user_keys() or value in ("", None):
            return value
        return {"$hashed": hashed(value, self._key)}


@cache
def _user_keys() -> frozenset[str]:
    return frozenset(source.key for source in sources() if source.conversion is Conversion.HASH)


@cache
def _movable_keys() -> Mapping[str, tuple[str, ...]]:
    return {
        column: tuple({source.key: None for source in sources() if source.column == column and _whole(source.place)})
        for column in MOVABLE
    }


def _whole(place: Place) -> bool:
    return place is Place.ATTRIBUTE


def _moved(attributes: Mapping[str, Json], row: Mapping[str, Any]) -> dict[str, str]:
    """The attributes whose text a column holds, byte for byte, and the columns."""
    return {
        key: column
        for column in MOVABLE
        if (text := row.get(column)) is not None
        for key in _movable_keys()[column]
        if attributes.get(key) == text
    }


def _validate(span: Span, oldest: int, newest: int) -> None:
    """Raises RejectedSpanError for a span that cannot be told apart from others, or has no place in time."""
    if len(span.trace_id) != 16 or not any(span.trace_id):
        raise RejectedSpanError("trace_id")
    if len(span.span_id) != 8 or not any(span.span_id):
        raise RejectedSpanError("span_id")
    if len(span.parent_span_id) not in (0, 8):
        raise RejectedSpanError("parent_span_id")
    if span.end_time_unix_nano < span.start_time_unix_nano:
        raise RejectedSpanError("ends_before_start")
    if span.start_time_unix_nano < oldest:
        raise RejectedSpanError("too_old")
    if span.end_time_unix_nano > newest:
        raise RejectedSpanError("in_the_future")


def _events(span: Span, failed: bool) -> tuple[list[Json], dict[str, tuple[int, list[Mapping[str, Any]]]]]:
    """The events for `attributes`, and what they offer to the columns: first time and attributes by name.

    A stream has an empty event for each chunk: a run of them is kept as one, with a list of times.
    """
    start = span.start_time_unix_nano
    kept: list[Json] = []
    offered: dict[str, tuple[int, list[Mapping[str, Any]]]] = {}
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


def _rest(span: Span, row: Mapping[str, Any]) -> dict[str, Json]:
    """What a span has besides attributes and events; only what is not empty."""
    rest: dict[str, Json] = {
        "kind": SPAN_KINDS.get(span.kind, span.kind),
        "flags": span.flags,
        "trace_state": span.trace_state,
        "dropped_attributes": span.dropped_attributes_count,
        "dropped_events": span.dropped_events_count,
        "dropped_links": span.dropped_links_count,
        # The column counts an unset status as ok.
        "status_code": {1: "OK", 2: "ERROR"}.get(span.status.code, span.status.code),
        # The columns have microseconds.
        "start_unix_nano": span.start_time_unix_nano if span.start_time_unix_nano % 1000 else 0,
        "end_unix_nano": span.end_time_unix_nano if span.end_time_unix_nano % 1000 else 0,
        "links": [_link(link) for link in span.links] if span.links else None,
    }
    if not span.status.message and row.get("status_message"):
        rest["status_message_from_attribute"] = True
    return {key: value for key, value in rest.items() if value}


def _broke_off(row: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
    """Whether a call that claims to be fine had no answer at all.

    The OpenAI instrumentation ends the span of a stream that timed out before its first chunk with status OK and an
    empty list of messages; the exception is the application's alone.
    """
    return (
        row["kind"] == "llm"
        and all(row.get(name) is None for name in ("output_messages", "finish_reason", "response_id", "output_tokens"))
        and any(attributes.get(key) in NO_MESSAGES for key in ANSWER_KEYS)
    )


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


def _tail(resource: Json, resource_spans: ResourceSpans, scope_spans: ScopeSpans) -> str:
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
    return "," + dump(tail)[1:]


def _cut_all(attributes: dict[str, Json], limit: int, lost: dict[str, int]) -> dict[str, Json]:
    kept = {}
    for key, value in attributes.items():
        kept[key], gone = cut(value, limit)
        if gone:
            lost[key] = gone
    return kept


def _cut_columns(row: dict[str, Any], limit: int, lost: dict[str, int]) -> None:
    for column, value in row.items():
        if not isinstance(value, str) or len(value) <= limit:
            continue
        if column in JSON_COLUMNS:
            # Half a JSON document is none; the attribute's beginning is kept.
            row[column] = None
        elif column not in MOVABLE:
            row[column] = value[:limit]
            lost[column] = len(value) - limit


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    # Most requests are small and leave most columns empty: those cost nothing.
    said = set().union(*rows)
    columns = [
        _column([row.get(field.name) for row in rows], field.type)
        if field.name in said
        else _nulls(len(rows), field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


@lru_cache(maxsize=4096)
def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(rows, kind)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        # JSON in a string may hold half a surrogate pair, which no UTF-8 can.
        return pa.array([value and value.encode("utf-8", "replace").decode() for value in values], kind)
