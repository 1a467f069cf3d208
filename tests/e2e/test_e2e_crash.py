"""What was acknowledged is there after `kill -9`, once."""

import random
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.service_kit import RunningService

pytestmark = pytest.mark.timeout(400)
KILLS = 5
SENDERS = 3
SPANS_PER_BATCH = 50
SEED = 20261123


class Sender(threading.Thread):
    """Sends batches one after another, each again until it is acknowledged, as an OTLP exporter does."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.number = number
        self.acknowledged: set[str] = set()
        self.resent = 0
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
            ids.add(span.trace_id.hex() + span.span_id.hex())
        return ids, request.SerializeToString()

    def _send(self, body: bytes) -> bool:
        request = urllib.request.Request(
            f"{self.url}/v1/traces", data=body, headers={"Content-Type": "application/x-protobuf"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError, OSError):
            return False


def test_five_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    moments = random.Random(SEED)
    service = RunningService(tmp_path)
    service.start()
    senders = [Sender(service.otlp_url, number + 1) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    for _ in range(KILLS):
        time.sleep(moments.uniform(0.3, 1.5))
        service.kill()
        service.start()
    time.sleep(0.5)
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(timeout=20)
    service.kill()

    stored = [
        key
        for (key,) in duckdb.connect(str(service.data / "tidegauge.duckdb"))
        .execute("SELECT trace_id || span_id FROM spans")
        .fetchall()
    ]
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    assert len(acknowledged) > KILLS * SPANS_PER_BATCH, "there was no load to speak of"
    assert sum(sender.resent for sender in senders) >= KILLS, "no kill hit a sender"
    assert acknowledged - set(stored) == set()
    assert len(stored) == len(set(stored))
