"""From the bytes of a request to its message: decompression with a limit, protobuf and JSON."""

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

import orjson
import pyarrow as pa
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from collector.otlp.json_form import UnusualError, message_of

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
ENCODINGS = ("gzip", "deflate", "zstd", "identity")
M = TypeVar("M", bound=Message)
CHUNK = 256 * 1024


class MalformedBodyError(Exception):
    """The body is not what its headers say; the message says in which way."""


class BodyTooLargeError(Exception):
    """The body is larger than the settings allow, compressed or not."""


class UnsupportedBodyError(Exception):
    """A content type or an encoding that we do not read."""


def media_type(content_type: str | None) -> str:
    """PROTOBUF or JSON, of the Content-Type header; UnsupportedBodyError for anything else."""
    name = (content_type or "").partition(";")[0].strip().lower()
    if name in (PROTOBUF, JSON):
        return name
    if name == "application/protobuf":
        return PROTOBUF
    raise UnsupportedBodyError(f"Content-Type {_short(content_type)} is not read; send {PROTOBUF} or {JSON}")


def decompress(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body without its Content-Encoding; never inflates more than `limit` bytes."""
    name = (encoding or "identity").strip().lower()
    if name in ("", "identity"):
        if len(body) > limit:
            raise BodyTooLargeError(f"the body has {len(body)} bytes; the limit is {limit}")
        return body
    if name in ("gzip", "x-gzip"):
        return _inflate(body, 31, "gzip", limit)
    if name == "deflate":
        # zlib's form as the RFC has it, or raw as some senders have it.
        raw = not (len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0)
        return _inflate(body, -15 if raw else 15, "deflate", limit)
    if name == "zstd":
        return _unzstd(body, limit)
    raise UnsupportedBodyError(f"Content-Encoding {_short(encoding)} is not read; send {', '.join(ENCODINGS)}")


def parse(body: bytes, media: str, message: type[M]) -> M:
    """The body as a message, by its media type."""
    return _from_json(body, message) if media == JSON else _from_protobuf(body, message)


def _short(value: str | None) -> str:
    return repr((value or "")[:80])


def _inflate(body: bytes, window: int, name: str, limit: int) -> bytes:
    made = bytearray()
    rest = body
    try:
        # gzip may hold several members.
        while rest:
            inflater = zlib.decompressobj(window)
            made += inflater.decompress(rest, limit + 1 - len(made))
            if len(made) > limit:
                raise BodyTooLargeError(f"the body inflates to more than {limit} bytes")
            if not inflater.eof:
                raise MalformedBodyError(f"the {name} body is cut off after {len(body)} bytes")
            rest = inflater.unused_data if window == 31 else b""
    except zlib.error as error:
        raise MalformedBodyError(f"the body is not {name}, as Content-Encoding says: {error}") from None
    return bytes(made)


def _unzstd(body: bytes, limit: int) -> bytes:
    made = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while chunk := stream.read(min(CHUNK, limit + 1 - len(made))):
                made += chunk
                if len(made) > limit:
                    raise BodyTooLargeError(f"the body inflates to more than {limit} bytes")
    except OSError:
        raise MalformedBodyError("the body is not zstd, as Content-Encoding says") from None
    return bytes(made)


def _from_protobuf(body: bytes, message: type[M]) -> M:
    made = message()
    try:
        made.ParseFromString(body)
    except DecodeError:
        raise MalformedBodyError(
            f"the body ({len(body)} bytes) is not a protobuf {message.DESCRIPTOR.name}{_hint(body)}"
        ) from None
    return made


def _hint(body: bytes) -> str:
    if body[:2] == b"\x1f\x8b":
        return "; it looks like gzip: say so with Content-Encoding: gzip"
    if body.lstrip()[:1] == b"{":
        return f"; it looks like JSON: say so with Content-Type: {JSON}"
    return "; it is cut off, or of another kind, or a string in it is not UTF-8"


def _from_json(body: bytes, message: type[M]) -> M:
    try:
        return message_of(orjson.loads(body), message)
    except (UnusualError, TypeError, ValueError, RecursionError):
        return from_any_json(body, message)


def from_any_json(body: bytes, message: type[M]) -> M:
    """As protobuf's own reader reads it, which says what is wrong."""
    name = message.DESCRIPTOR.name
    try:
        document = json.loads(body)
    except RecursionError:
        raise MalformedBodyError("the JSON body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"the JSON body is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        hint = "; it looks like gzip: say so with Content-Encoding: gzip" if body[:2] == b"\x1f\x8b" else ""
        raise MalformedBodyError(f"the body is not JSON: {error}{hint}") from None
    if not isinstance(document, dict):
        raise MalformedBodyError(f"the JSON body is not an object, as {name} is")
    try:
        for holder in _with_ids(document):
            for key in ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"):
                if isinstance(holder.get(key), str):
                    holder[key] = _hex_as_base64(holder[key])
        return ParseDict(document, message(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedBodyError(f"the JSON body is not {name}: {str(error)[:300]}") from None


def _with_ids(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Spans, links, log records and exemplars: OTLP/JSON has their ids in hex, where protobuf's JSON has base64."""
    for resource in _list(document, "resourceSpans", "resource_spans"):
        for scope in _list(resource, "scopeSpans", "scope_spans"):
            for span in _list(scope, "spans", "spans"):
                yield span
                yield from _list(span, "links", "links")
    for resource in _list(document, "resourceLogs", "resource_logs"):
        for scope in _list(resource, "scopeLogs", "scope_logs"):
            yield from _list(scope, "logRecords", "log_records")
    for resource in _list(document, "resourceMetrics", "resource_metrics"):
        for scope in _list(resource, "scopeMetrics", "scope_metrics"):
            for metric in _list(scope, "metrics", "metrics"):
                yield from _exemplars(metric)


def _exemplars(metric: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for data in metric.values():
        if isinstance(data, dict):
            for point in _list(data, "dataPoints", "data_points"):
                yield from _list(point, "exemplars", "exemplars")


def _list(holder: dict[str, Any], *keys: str) -> Iterator[dict[str, Any]]:
    for key in keys[: len(set(keys))]:
        items = holder.get(key)
        if isinstance(items, list):
            yield from (item for item in items if isinstance(item, dict))


def _hex_as_base64(text: str) -> str:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        # One byte is no id: this span is rejected, the others are not.
        raw = b"\0"
    return base64.b64encode(raw).decode("ascii")
