"""From an OTLP logs request to rows of `log_records`, parts of spans (`span_contents`) and scores.

As with spans, nothing is lost: what no column holds stays in `attributes`, a JSON object {"log": {...}, "resource":
{...}, "scope": {...}, ...}.  Only what goes to the span's own row is left out there, and named under `moved`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from catalog.dialect import Place, sources, spellings
from catalog.log_events import LogEvent, ReadAs, is_genai, log_events, message_keys
from collector.otlp.attributes import Json, as_mapping, cut, dump, mapping, plain
from collector.otlp.conversions import Context, hidden
from collector.otlp.dialects import Matcher
from collector.otlp.messages import messages_json, parsed
from collector.otlp.settings import OtlpSettings
from collector.otlp.settle import settle
from store.contents import APPEND, APPENDED, CONTENT, FILL, FILLABLE, logs_schema, parts_schema

RECORDS, PARTS = logs_schema(), parts_schema()
REASONS: Mapping[str, str] = {
    "trace_id": "trace_id is not 16 bytes",
    "span_id": "span_id is not 8 bytes",
    "too_old": "its time is too long ago",
    "in_the_future": "its time is in the future",
    "unreadable": "its body or attributes cannot be read",
}
NOT_KEPT: Mapping[str, str] = {
    "no_trace": "outside of any trace, which otlp.logs leaves out (all keeps them)",
    "not_genai": "no GenAI event, and otlp.logs keeps those alone",
}
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
# Times relative to a span's start cannot be told from a record alone: this start is past every event.
NO_START = 2**63 - 1
Row = dict[str, Any]


class RejectedRecordError(Exception):
    """A record that cannot be stored, or is not to be; the message is a key of REASONS or NOT_KEPT."""


@dataclass(frozen=True)
class Evaluation:
    """What an external evaluator said; the ids are those of the record, None where it gives none."""

    record_id: str
    trace_id: str | None
    span_id: str | None
    time: datetime
    said: Mapping[str, Any]  # evaluator, version, value, label, explanation, error_type, response_id
    columns: Mapping[str, Any]  # of `spans`: what the record says, else its resource


@dataclass
class DecodedLogs:
    """The rows of a request, and what did not become one."""

    rows: list[Row] = field(default_factory=list)
    part_rows: list[Row] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # key of REASONS or NOT_KEPT: records
    truncated: int = 0

    def records(self) -> pa.Table:
        """Rows of `log_records`."""
        return _table(self.rows, RECORDS)

    def parts(self) -> pa.Table:
        """Rows of `span_contents`."""
        return _table(self.part_rows, PARTS)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What all records of a scope share."""

    name: str
    columns: Mapping[str, Any]
    tail: str  # the end of the attributes' JSON text: resource and scope


@dataclass(slots=True)
class _Read:
    """A record while it is read."""

    row: Row
    pairs: list[tuple[str, Json]]  # the attributes
    said: Mapping[str, Any]  # columns of `spans`, were the attributes a span's
    body: Json
    event: LogEvent | None
    position: int
    moved: dict[str, str] = field(default_factory=dict)  # attribute or `body`: where it is instead
    parts: list[Row] = field(default_factory=list)
    evaluation: Evaluation | None = None


class LogDecoder:
    """Decodes requests; holds nothing between them."""

    def __init__(self, settings: OtlpSettings, key: bytes) -> None:
        self._settings = settings
        self._key = key
        self._matcher = Matcher(settings.tenant_keys)
        self._context = Context(NO_START, settings.max_attribute_bytes, key)
        self._readers: Mapping[ReadAs, Callable[[_Read, LogEvent, _Scope], None]] = {
            ReadAs.SPAN: self._as_span,
            ReadAs.SPAN_EVENT: self._as_span_event,
            ReadAs.MESSAGE: self._as_message,
            ReadAs.SCORE: self._as_score,
        }

    def decode(self, request: ExportLogsServiceRequest, body: bytes, now: float) -> DecodedLogs:
        """The rows; `body` is the request's bytes, `now` is Unix time."""
        decoded = DecodedLogs()
        identities = _Identities(body)
        for resource_logs in request.resource_logs:
            for scope_logs in resource_logs.scope_logs:
                scope = self._scope(resource_logs, scope_logs)
                for record in scope_logs.log_records:
                    self._add(decoded, record, scope, identities, now)
        return decoded

    def _scope(self, resource_logs: ResourceLogs, scope_logs: ScopeLogs) -> _Scope:
        limit = self._settings.max_attribute_bytes
        pairs = [(item.key, plain(item.value)) for item in resource_logs.resource.attributes]
        whole: Row = {
            "name": scope_logs.scope.name,
            "version": scope_logs.scope.version,
            "attributes": mapping(scope_logs.scope.attributes),
            "schema_url": scope_logs.schema_url,
        }
        tail: Row = {
            "resource": cut(self._kept(pairs), limit)[0],
            "scope": {name: value for name, value in whole.items() if value},
        }
        if resource_logs.schema_url:
            tail["resource_schema_url"] = resource_logs.schema_url
        columns = self._matcher.of_resource(dict(pairs), Context(0, limit, self._key))
        return _Scope(scope_logs.scope.name, columns, "," + dump(tail)[1:])

    def _add(
        self, decoded: DecodedLogs, record: LogRecord, scope: _Scope, identities: "_Identities", now: float
    ) -> None:
        try:
            read = self._read(record, scope, now, len(decoded.rows))
            read.row["record_id"] = identities.of(record, scope)
            if read.event is not None:
                self._readers[read.event.read_as](read, read.event, scope)
            truncated = self._keep(read, record, scope)
        except RejectedRecordError as error:
            decoded.left_out[str(error)] += 1
            return
        except (ValueError, TypeError, RecursionError, OverflowError):
            # One record that nobody foresaw must not take the others of its request with it.
            decoded.left_out["unreadable"] += 1
            return
        decoded.rows.append(read.row)
        decoded.part_rows += read.parts
        decoded.evaluations += [read.evaluation] if read.evaluation else []
        decoded.truncated += truncated

    def _read(self, record: LogRecord, scope: _Scope, now: float, position: int) -> _Read:
        pairs = [(item.key, plain(item.value)) for item in record.attributes]
        attributes = dict(pairs)
        name = record.event_name or attributes.get("event.name")
        name = name if isinstance(name, str) else ""
        trace_id = _id(record.trace_id, 16, "trace_id")
        span_id = _id(record.span_id, 8, "span_id") if trace_id else None
        self._wanted(name, trace_id)
        said = self._matcher.of_span("", "", scope.name, attributes, {}, {}, self._context)
        settle(said)
        nanoseconds = record.time_unix_nano or record.observed_time_unix_nano
        row: Row = {
            "time": self._time(nanoseconds, now) if nanoseconds else datetime.fromtimestamp(now, UTC),
            "observed_time": _moment(record.observed_time_unix_nano or nanoseconds) if nanoseconds else None,
            "trace_id": trace_id,
            "span_id": span_id,
            "severity": _severity(record),
            "severity_number": record.severity_number or None,
            "event_name": name or None,
            "scope": scope.name or None,
            "tenant": said.get("tenant", scope.columns.get("tenant")),
            **{column: scope.columns.get(column) for column in ("service", "instance", "environment")},
        }
        body = plain(record.body) if record.HasField("body") else None
        return _Read(row, pairs, said, body, log_events().get(name), position)

    def _time(self, nanoseconds: int, now: float) -> datetime:
        if nanoseconds / 1e9 < now - self._settings.max_age_seconds:
            raise RejectedRecordError("too_old")
        if nanoseconds / 1e9 > now + self._settings.max_future_seconds:
            raise RejectedRecordError("in_the_future")
        return _moment(nanoseconds)

    def _wanted(self, name: str, trace_id: str | None) -> None:
        """Raises RejectedRecordError for a record that the settings leave out."""
        kept = self._settings.logs
        if is_genai(name) or kept == "all":
            return
        if trace_id is None:
            raise RejectedRecordError("no_trace" if kept == "traced" else "not_genai")
        if kept == "genai" and name not in log_events():
            raise RejectedRecordError("not_genai")

    # --- what a record says of its span -----------------------------------------------------------------------------

    def _as_span(self, read: _Read, event: LogEvent, scope: _Scope) -> None:
        columns = _fillable(read.said)
        if not self._part(read, FILL, columns):
            return
        for key, value in read.pairs:
            for column in _content_keys().get(key, ()):
                # What the column has in another form stays in the record, too.
                if parsed(columns.get(column)) == parsed(value):
                    read.moved[key] = column

    def _as_span_event(self, read: _Read, event: LogEvent, scope: _Scope) -> None:
        events: Mapping[str, tuple[int, list[Mapping[str, Any]]]] = {event.span_event: (0, [dict(read.pairs)])}
        columns = _fillable(self._matcher.of_span("", "", "", {}, events, {}, self._context))
        self._part(read, APPEND if columns.keys() & set(APPENDED) else FILL, columns)

    def _as_message(self, read: _Read, event: LogEvent, scope: _Scope) -> None:
        body = parsed(read.body)
        if not isinstance(body, Mapping):
            body = {"content": body} if body not in (None, "") else {}
        columns: Row = {}
        for column, key in event.facts.items():
            if isinstance(value := body.get(key), str) and value:
                columns[column] = spellings().get(column, {}).get(value.casefold(), value)
        message = {event.rename.get(key, key): value for key, value in body.items()}
        text = messages_json([{"role": event.role, **message}], event.role, self._settings.max_attribute_bytes)
        # Where no content is captured there is a role and no part: that is no message.
        if text is not None and any(item["parts"] for item in parsed(text)):
            columns[event.column] = text
        if self._part(read, APPEND, columns) and event.column in columns:
            read.moved["body"] = event.column
            read.body = {key: value for key, value in body.items() if key not in message_keys()} or None

    def _as_score(self, read: _Read, event: LogEvent, scope: _Scope) -> None:
        attributes, row = dict(read.pairs), read.row
        said = {
            name: next((attributes[key] for key in keys if attributes.get(key) not in (None, "")), None)
            for name, keys in event.fields.items()
        }
        if isinstance(said["evaluator"], str):
            read.evaluation = Evaluation(
                row["record_id"], row["trace_id"], row["span_id"], row["time"], said, {**scope.columns, **read.said}
            )

    def _part(self, read: _Read, mode: str, columns: Row) -> bool:
        """Adds what the record says of its span; False where it says nothing, or of no span."""
        row, response_id = read.row, columns.get("response_id")
        if not columns or not (row["span_id"] or response_id):
            return False
        facts = {name: value for name, value in columns.items() if name not in CONTENT}
        read.parts.append(
            {
                **{name: row[name] for name in ("record_id", "trace_id", "span_id", "tenant", "time")},
                "response_id": response_id,
                "position": read.position,
                "mode": mode,
                **{name: columns[name] for name in CONTENT if name in columns},
                "facts": dump(facts) if facts else None,
            }
        )
        return True

    # --- the record itself ------------------------------------------------------------------------------------------

    def _kept(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        return as_mapping([(key, hidden(key, value, self._key)) for key, value in pairs])

    def _keep(self, read: _Read, record: LogRecord, scope: _Scope) -> int:
        """Fills `body` and `attributes` with all that no other row holds; says how many values had to be cut."""
        limit, lost = self._settings.max_attribute_bytes, dict[str, int]()
        kept = self._kept([(key, value) for key, value in read.pairs if key not in read.moved])
        body = read.body
        if record.ByteSize() > limit:
            for key, value in kept.items():
                kept[key], gone = cut(value, limit)
                if gone:
                    lost[key] = gone
            body, gone = cut(body, limit)
            if gone:
                lost["body"] = gone
        rest: Row = {
            "body_is_json": body is not None and not isinstance(body, str),
            "flags": record.flags,
            "dropped_attributes": record.dropped_attributes_count,
            "severity_text": record.severity_text if record.severity_text != read.row["severity"] else "",
            "moved": read.moved,
            "truncated": lost,
        }
        read.row["body"] = body if body is None or isinstance(body, str) else dump(body)
        more = dump({name: value for name, value in rest.items() if value})[1:-1]
        read.row["attributes"] = f'{{"log":{dump(kept)}{"," if more else ""}{more}{scope.tail}'
        return len(lost)


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:
        # JSON in a string may hold half a surrogate pair, which no UTF-8 can.
        clean = [{name: _encodable(value) for name, value in row.items()} for row in rows]
        return pa.Table.from_pylist(clean, schema=schema)


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class _Identities:
    """Ids of records, the same when they are sent again: a digest of the record and where it came from.

    Equal records of one request are told apart by their number.  A record without a time is told from that of
    another request by the request's own digest.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._seen: Counter[bytes] = Counter()

    def of(self, record: LogRecord, scope: _Scope) -> str:
        """32 hex digits."""
        digest = hashlib.blake2b(record.SerializeToString(deterministic=True), digest_size=16)
        digest.update(scope.tail.encode("utf-8", "surrogatepass"))
        if not record.time_unix_nano and not record.observed_time_unix_nano:
            digest.update(hashlib.blake2b(self._body).digest())
        same = digest.digest()
        self._seen[same] += 1
        if self._seen[same] > 1:
            digest.update(str(self._seen[same]).encode())
        return digest.hexdigest()


@cache
def _content_keys() -> Mapping[str, frozenset[str]]:
    """Attributes that may be a column's content as a whole, and the columns."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources():
        if source.place is Place.ATTRIBUTE and source.column in CONTENT and not source.paths:
            found[source.key].add(source.column)
    return {key: frozenset(columns) for key, columns in found.items()}


def _fillable(said: Mapping[str, Any]) -> Row:
    return {name: value for name, value in said.items() if name in FILLABLE and value is not None}


def _id(raw: bytes, size: int, reason: str) -> str | None:
    """The id in hex, None where there is none.  Raises RejectedRecordError for one of another size."""
    if len(raw) not in (0, size):
        raise RejectedRecordError(reason)
    return raw.hex() if any(raw) else None


def _moment(nanoseconds: int) -> datetime:
    # Exact to the microsecond, which a float of seconds is not.
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds // 1000 % 10**6)


def _severity(record: LogRecord) -> str | None:
    """The level's name, whatever its source calls it."""
    if 1 <= record.severity_number <= 24:
        return LEVELS[(record.severity_number - 1) // 4]
    return record.severity_text.upper() or None
