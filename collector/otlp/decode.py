"""From an OTLP trace request to rows of `spans`.

Every attribute, event and link is kept in `attributes`; see docs/tracing.md for its form.  Only texts that a column
holds byte for byte are left out there (and named under `moved`), and user ids, which are stored hashed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from collector.otlp.attributes import Json, as_mapping, by_key, cut, encode, pairs
from collector.otlp.conversions import Context, hidden
from collector.otlp.dialects import Matcher
from collector.otlp.plan import MOVABLE, Plan
from collector.otlp.rest import SPAN_KINDS, events_of, rest_of, tail_of
from collector.otlp.settings import OtlpSettings
from collector.otlp.settle import settle
from collector.otlp.span_rows import EMPTY, Row, table

JSON_COLUMNS = ("response_schema", "retrieved_documents", "feature_flags")
MAX_NS = 2**63 - 1
STATUS_ERROR = 2
NO_TRACE, NO_SPAN = bytes(16), bytes(8)
# What a client says of an answer that has no message in it; one that captures no content says nothing.
NO_MESSAGES: tuple[Any, ...] = ("[]", [])
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
    row: Row  # what the resource says
    tail: bytes  # the end of the attributes' JSON text


@dataclass(slots=True)
class _Said:
    """What a span says besides its fields."""

    attributes: dict[str, Json]
    twice: list[tuple[str, Json]] | None  # all of them, if a key comes twice
    plan: Plan
    rest: dict[str, Json]
    events: list[Json]


@dataclass(slots=True)
class _Batch:
    oldest: int  # nanoseconds
    newest: int
    rows: list[Row] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    latest_end: int = 0


class Decoder:
    """Decodes requests; holds nothing of them."""

    def __init__(self, settings: OtlpSettings, key: bytes) -> None:
        self._settings = settings
        self._limit = settings.max_attribute_bytes
        self._key = key
        self._matcher = Matcher(settings.tenant_keys)

    def decode(self, request: ExportTraceServiceRequest, now: float) -> Decoded:
        """The rows, with columns SCHEMA; `now` is Unix time."""
        batch = _Batch(
            oldest=int(max(now - self._settings.max_age_seconds, 0) * 1e9),
            newest=min(int((now + self._settings.max_future_seconds) * 1e9), MAX_NS),
        )
        for resource_spans in request.resource_spans:
            resource, columns = self._resource(resource_spans)
            for scope_spans in resource_spans.scope_spans:
                name = scope_spans.scope.name
                row = {**EMPTY, "kind": "other", "status": "ok", **columns, "scope": name or None}
                scope = _Scope(name, row, tail_of(resource, resource_spans, scope_spans))
                for span in scope_spans.spans:
                    self._add(batch, span, scope)
        return Decoded(
            table=table(batch.rows),
            rejected=dict(batch.rejected),
            truncated=batch.truncated,
            latest_end=batch.latest_end / 1e9 if batch.latest_end else None,
        )

    def _resource(self, resource_spans: ResourceSpans) -> tuple[Json, dict[str, Any]]:
        said = pairs(resource_spans.resource.attributes)
        columns = self._matcher.of_resource(dict(said), Context(0, self._limit, self._key))
        kept = as_mapping([(key, hidden(key, value, self._key)) for key, value in said])
        return cut(kept, self._limit)[0], columns

    def _add(self, batch: _Batch, span: Span, scope: _Scope) -> None:
        try:
            fault = _fault(span, batch.oldest, batch.newest)
            if not fault:
                row, truncated = self._row(span, scope)
        except (ValueError, TypeError, RecursionError, OverflowError):
            # One span that nobody foresaw must not take the others of its request with it.
            fault = "unreadable"
        if fault:
            batch.rejected[fault] += 1
            return
        batch.rows.append(row)
        batch.truncated += truncated
        batch.latest_end = max(batch.latest_end, span.end_time_unix_nano)

    def _row(self, span: Span, scope: _Scope) -> tuple[Row, int]:
        start, end, status = span.start_time_unix_nano, span.end_time_unix_nano, span.status
        failed = status.code == STATUS_ERROR
        sent = span.attributes
        attributes = by_key(sent)
        events, offered = events_of(span, failed) if span.events else ([], {})
        row = scope.row.copy()
        name, kind = span.name, SPAN_KINDS.get(span.kind, "UNSPECIFIED")
        context = Context(start, self._limit, self._key)
        plan = self._matcher.fill(row, name, kind, scope.name, attributes, offered, context)
        row["start_time"], row["end_time"], row["duration_s"] = start // 1000, end // 1000, (end - start) / 1e9
        row["trace_id"], row["span_id"], row["name"] = span.trace_id.hex(), span.span_id.hex(), name
        if (parent := span.parent_span_id) != NO_SPAN:
            row["parent_span_id"] = parent.hex() or None
        rest = rest_of(span)
        if message := status.message:
            row["status_message"] = message
        elif row["status_message"]:
            rest["status_message_from_attribute"] = True
        row["status"] = "error" if failed else "ok"
        settle(row)
        if not failed and _broke_off(row, attributes, plan):
            row["status"], row["error_type"] = "error", BROKE_OFF
        # A key that comes twice is against the specification; both values are kept.
        twice = pairs(sent) if len(sent) != len(attributes) else None
        return row, self._keep(row, span, _Said(attributes, twice, plan, rest, events), scope)

    def _keep(self, row: Row, span: Span, said: _Said, scope: _Scope) -> int:
        """Fills `attributes` with all that the columns do not hold; says how many values had to be cut."""
        moved = _moved(row, said)
        lost: dict[str, int] = {}
        text = self._text(said, moved, None)
        # Nothing in a span that is smaller than the limit can be larger than it.
        size = len(text) + len(row["name"]) + len(row["status_message"] or "")
        if moved:
            size += sum([len(row[column]) for column in moved.values()])
        if size > self._limit and span.ByteSize() > self._limit:
            _cut_columns(row, self._limit, lost)
            text = self._text(said, _moved(row, said), lost)
        row["attributes"] = text[:-1] + scope.tail
        return len(lost)

    def _text(self, said: _Said, moved: Mapping[str, str], lost: dict[str, int] | None) -> bytes:
        """The JSON text; cut where `lost` is given, which then tells of what."""
        if said.twice or said.plan.wrapped:
            sent = said.twice or said.attributes.items()
            kept = as_mapping([(key, hidden(key, value, self._key)) for key, value in sent if key not in moved])
        elif moved or said.plan.users:
            kept = said.attributes.copy()
            for key in moved:
                del kept[key]
            for key in said.plan.users:
                kept[key] = hidden(key, kept[key], self._key)
        else:
            kept = said.attributes
        events = said.events
        if lost is not None:
            kept, events = _cut_all(kept, self._limit, lost), [cut(event, self._limit)[0] for event in events]
        whole: dict[str, Json] = {"span": kept, **said.rest}
        if moved:
            whole["moved"] = moved
        if lost:
            whole["truncated"] = lost
        if events:
            whole["events"] = events
        return encode(whole)


def _fault(span: Span, oldest: int, newest: int) -> str | None:
    """Why a span cannot be told apart from others, or has no place in time; a key of REASONS."""
    trace_id, span_id = span.trace_id, span.span_id
    if len(trace_id) != 16 or trace_id == NO_TRACE:
        return "trace_id"
    if len(span_id) != 8 or span_id == NO_SPAN:
        return "span_id"
    if len(span.parent_span_id) not in (0, 8):
        return "parent_span_id"
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if end < start:
        return "ends_before_start"
    if start < oldest:
        return "too_old"
    return "in_the_future" if end > newest else None


def _broke_off(row: Row, attributes: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a call that claims to be fine had no answer at all.

    The OpenAI instrumentation ends the span of a stream that timed out before its first chunk with status OK and an
    empty list of messages; the exception is the application's alone.
    """
    return (
        row["kind"] == "llm"
        and row["output_messages"] is None
        and all(row[name] is None for name in ("finish_reason", "response_id", "output_tokens"))
        and any(attributes[key] in NO_MESSAGES for key in plan.answers)
    )


def _moved(row: Row, said: _Said) -> dict[str, str]:
    """The attributes whose text a column holds, byte for byte, and the columns."""
    if said.twice:
        return {}
    return {
        key: column
        for key, column in said.plan.movable
        if (text := row[column]) is not None and said.attributes[key] == text
    }


def _cut_all(attributes: dict[str, Json], limit: int, lost: dict[str, int]) -> dict[str, Json]:
    kept = {}
    for key, value in attributes.items():
        kept[key], gone = cut(value, limit)
        if gone:
            lost[key] = gone
    return kept


def _cut_columns(row: Row, limit: int, lost: dict[str, int]) -> None:
    for column, value in row.items():
        if not isinstance(value, str) or len(value) <= limit:
            continue
        if column in JSON_COLUMNS:
            # Half a JSON document is none; the attribute's beginning is kept.
            row[column] = None
        elif column not in MOVABLE:
            row[column] = value[:limit]
            lost[column] = len(value) - limit
