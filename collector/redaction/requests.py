"""Redaction and capture of OTLP requests as they came, for the flight recorder."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.otlp.attributes import plain
from collector.otlp.parse import PROTOBUF, parse
from collector.redaction.capture import is_content
from collector.redaction.columns import Privacy
from collector.redaction.settings import Capture
from collector.redaction.texts import SECRET

KINDS: dict[str, type[Message]] = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}


class RequestPrivacy:
    """Does to a request what Privacy does to the rows that it becomes; contents that are not kept whole go."""

    def __init__(self, privacy: Privacy, tenant_keys: Sequence[str]) -> None:
        self._privacy = privacy
        self._texts = privacy.texts
        self._tenant_keys = tuple(tenant_keys)

    def clean(self, path: str, content_type: str, body: bytes) -> tuple[str, bytes]:
        """Content type and body of the request without what must not reach the disk."""
        kind = KINDS.get(path)
        if kind is None:
            return content_type, body
        request: Any = parse(body, content_type, kind)
        for resource in request.resource_spans if path == "/v1/traces" else request.resource_logs:
            tenant = self._tenant(resource.resource.attributes)
            self._attributes(resource.resource.attributes, Capture.FULL)
            for scope in resource.scope_spans if path == "/v1/traces" else resource.scope_logs:
                for item in scope.spans if path == "/v1/traces" else scope.log_records:
                    self._item(item, tenant)
        return PROTOBUF, request.SerializeToString()

    def _tenant(self, attributes: Iterable[KeyValue]) -> str | None:
        said = {item.key: plain(item.value) for item in attributes if item.key in self._tenant_keys}
        return next((str(said[key]) for key in self._tenant_keys if said.get(key) not in (None, "")), None)

    def _item(self, item: Any, tenant: str | None) -> None:
        capture = self._privacy.capture(self._tenant(item.attributes) or tenant, item.trace_id.hex())
        self._attributes(item.attributes, capture)
        if item.DESCRIPTOR.name == "LogRecord":
            if capture is Capture.FULL:
                self._value(item.body)
            else:
                item.ClearField("body")
            return
        for event in item.events:
            self._attributes(event.attributes, capture)
        for link in item.links:
            self._attributes(link.attributes, capture)
        if item.status.message:
            kept = self._texts.any(item.status.message, Counter()) if capture is Capture.FULL else ""
            item.status.message = kept
        item.name = self._texts.any(item.name, Counter())

    def _attributes(self, attributes: Any, capture: Capture) -> None:
        for index in reversed(range(len(attributes))):
            item = attributes[index]
            if item.key in self._tenant_keys:
                continue
            if capture is not Capture.FULL and is_content(item.key, plain(item.value)):
                del attributes[index]
            elif item.value.WhichOneof("value") == "string_value" and self._texts.secret_key(item.key):
                item.value.string_value = SECRET
            else:
                self._value(item.value)

    def _value(self, value: AnyValue) -> None:
        which = value.WhichOneof("value")
        if which == "string_value":
            value.string_value = self._texts.any(value.string_value, Counter())
        elif which == "array_value":
            for item in value.array_value.values:
                self._value(item)
        elif which == "kvlist_value":
            self._attributes(value.kvlist_value.values, Capture.FULL)
