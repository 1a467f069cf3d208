"""Senders that keep account of what was acknowledged, and what a directory holds of it."""

import os
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import duckdb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS_PER_BATCH = 50


class Sender(threading.Thread):
    """Sends batches one after another, each again until it is acknowledged, as an OTLP exporter does."""

    def __init__(self, url: str, number: int, content_bytes: int = 0) -> None:
        """`number` tells senders apart; with `content_bytes` each span carries so much that nothing compresses."""
        super().__init__(daemon=True)
        self.content_bytes = content_bytes
        self.url = url
        self.number = number
        self.acknowledged: set[str] = set()
        self.resent = 0
        self.refusals: Counter[int | str] = Counter()
        self.retry_after: str | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        batch = 0
        while not self.ending.is_set():
            ids, body = self._batch(batch)
            while not self._send(body):
                if self.ending.wait(0.05):
                    return
                self.resent += 1
            self.acknowledged |= ids
            batch += 1

    def _batch(self, number: int) -> tuple[set[str], bytes]:
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        now = time.time_ns()
        ids = set()
        for index in range(SPANS_PER_BATCH):
            span = scope.spans.add(name="chat", kind=3, start_time_unix_nano=now - 10**9, end_time_unix_nano=now)
            span.trace_id = (self.number << 96 | number << 32 | 1).to_bytes(16, "big")
            span.span_id = (number << 16 | index + 1).to_bytes(8, "big")
            attribute = span.attributes.add(key="gen_ai.operation.name")
            attribute.value.string_value = "chat"
            if self.content_bytes:
                content = span.attributes.add(key="gen_ai.prompt.0.content")
                content.value.string_value = os.urandom(self.content_bytes // 2).hex()
            ids.add(span.trace_id.hex() + span.span_id.hex())
        return ids, request.SerializeToString()

    def _send(self, body: bytes) -> bool:
        request = urllib.request.Request(
            f"{self.url}/v1/traces", data=body, headers={"Content-Type": "application/x-protobuf"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            self.refusals[error.code] += 1
            self.retry_after = error.headers["Retry-After"]
        except (urllib.error.URLError, ConnectionError, TimeoutError, OSError) as error:
            self.refusals[type(error).__name__] += 1
        return False


def start(url: str, senders: int, content_bytes: int = 0) -> list[Sender]:
    """Senders at work."""
    started = [Sender(url, number + 1, content_bytes) for number in range(senders)]
    for sender in started:
        sender.start()
    return started


def stop(senders: list[Sender]) -> set[str]:
    """Ends them, and gives the ids of all spans that were acknowledged."""
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(timeout=20)
    return set().union(*(sender.acknowledged for sender in senders))


def stored(data: Path) -> list[str]:
    """The ids of all spans in a data directory that no process has open."""
    connection = duckdb.connect(str(data / "tidegauge.duckdb"))
    try:
        return [key for (key,) in connection.execute("SELECT trace_id || span_id FROM spans").fetchall()]
    finally:
        connection.close()
