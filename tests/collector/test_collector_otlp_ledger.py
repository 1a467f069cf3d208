"""Counts that add up in every scrape, whatever goes on meanwhile; and a bounded record of what arrived."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_support import KEY, FixedClock, production_bodies
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from catalog.instruments import Instruments
from collector.otlp import ledger as ledgers
from collector.otlp.ledger import Ledger
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable

PROTOBUF = "application/x-protobuf"
WEB = Sender("http", "/v1/traces", "/v1/traces", "k1", None, "sdk/1")
SUMS = {
    "requests": tuple(
        f"tidegauge_ingest_{name}" for name in ("received_requests_total", "requests_total", "open_requests")
    ),
    "spans": tuple(f"tidegauge_ingest_{name}" for name in ("received_total", "spans_total", "waiting")),
}


def sums(metrics: Instruments) -> dict[str, float]:
    """The sum of every family, in one scrape as Prometheus sees it."""
    scrape = generate_latest(metrics.registry).decode()
    return {
        sample: sum(found.value for found in family.samples if found.name == sample)
        for family in text_string_to_metric_families(scrape)
        for sample in {found.name for found in family.samples}
    }


def faults(metrics: Instruments) -> list[str]:
    """Which sums do not agree in one scrape."""
    seen = sums(metrics)
    get = seen.get
    return [
        f"{what}: {get(received, 0.0)} received, {get(ended, 0.0)} ended, {get(going, 0.0)} going on"
        for what, (received, ended, going) in SUMS.items()
        if get(received, 0.0) != get(ended, 0.0) + get(going, 0.0)
    ]


class FaultyStore:
    """Commits late and in another thread; now and then it refuses, fails, or has seen it all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def submit(self, batch: Batch) -> "Future[Committed]":
        with self._lock:
            drawn, delay = self._random.random(), self._random.random() * 0.01
        if drawn < 0.2:
            raise StoreOverloaded("the queue is full")
        if drawn < 0.3:
            raise StoreUnavailable("the disk is full")
        future: Future[Committed] = Future()
        rows = batch.rows()
        known = rows if drawn < 0.4 else rows // 3
        timer = threading.Timer(delay, self._finish, (future, drawn < 0.5, rows, known))
        timer.start()
        return future

    def _finish(self, future: "Future[Committed]", fails: bool, rows: int, known: int) -> None:
        if fails:
            future.set_exception(StoreUnavailable("commit failed"))
        else:
            future.set_result(Committed({"spans": rows - known}, {"spans": known}, 1))


def until_settled(ledger: Ledger) -> None:
    while ledger.recent().waiting["traces"]:
        time.sleep(0.01)


def bodies() -> Iterator[bytes]:
    """Good requests, some with spans that are rejected, and some that are none."""
    for index, raw in enumerate(production_bodies()[:40]):
        if index % 5 == 0:
            request = ExportTraceServiceRequest.FromString(raw)
            request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short")
            raw = request.SerializeToString()
        yield raw[:-3] if index % 7 == 0 else raw


async def test_every_scrape_adds_up_while_requests_come_and_fail_and_are_given_up() -> None:
    metrics = Instruments(CollectorRegistry())
    receiver = OtlpReceiver(OtlpSettings(), FaultyStore(1).submit, FixedClock(), metrics, KEY)
    stop = threading.Event()
    found: list[str] = []
    scrapes = 0

    def scrape() -> None:
        nonlocal scrapes
        while not stop.is_set():
            found.extend(faults(metrics))
            scrapes += 1

    watcher = threading.Thread(target=scrape)
    watcher.start()
    tasks = [asyncio.create_task(receiver.receive(raw, PROTOBUF, None, WEB)) for raw in [*bodies()] * 3]
    await asyncio.sleep(0.01)
    for task in tasks[::11]:
        task.cancel()
    await asyncio.wait(tasks)
    receiver.ledger.refused(WEB, Outcome.UNAUTHORIZED, "no key")
    await asyncio.to_thread(until_settled, receiver.ledger)
    stop.set()
    watcher.join()
    receiver.close()
    after = sums(metrics)
    assert (found, scrapes > 3) == ([], True)
    assert after["tidegauge_ingest_received_requests_total"] == 121 == after["tidegauge_ingest_requests_total"]
    assert after["tidegauge_ingest_open_requests"] == after["tidegauge_ingest_waiting"] == 0
    assert after["tidegauge_ingest_received_total"] == after["tidegauge_ingest_spans_total"] > 0
    by_status = {
        status: metrics.registry.get_sample_value("tidegauge_ingest_spans_total", {"status": status})
        for status in ("stored", "duplicate", "rejected", "overloaded", "failed")
    }
    assert all(by_status.values()), by_status
    assert by_status["rejected"] == after["tidegauge_ingest_rejected_spans_total"]


def test_who_gave_up_is_told_from_who_was_answered() -> None:
    metrics = Instruments(CollectorRegistry())
    receiver = OtlpReceiver(OtlpSettings(), lambda batch: Future(), FixedClock(), metrics, KEY)

    async def give_up() -> None:
        task = asyncio.create_task(receiver.receive(production_bodies()[20], PROTOBUF, None, WEB))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(give_up())
    receiver.close()
    assert [key.outcome for key in receiver.ledger.recent().requests] == ["incomplete"]


# --- the record -----------------------------------------------------------------------------------------------------


def rows(*services: str | None) -> pa.Table:
    return pa.table({"service": list(services), "tenant": ["t"] * len(services)})


def test_items_are_counted_by_source_and_fate() -> None:
    ledger = Ledger(Instruments(CollectorRegistry()), FixedClock())
    ledger.arrived(WEB, Signal.TRACES, "stored", rows("shop", "shop", None))
    ledger.noted(WEB, Signal.TRACES, {"rejected: too_old": 2, "rejected: span_id": 0}, ["shop", "shop", "cart"])
    found = {(key.fate, key.tenant, key.service): entry.count for key, entry in ledger.recent().sources.items()}
    assert found == {("stored", "t", "shop"): 2, ("stored", "t", ""): 1, ("rejected: too_old", "", "cart, shop"): 2}


def test_the_last_hour_is_told_from_what_was_before() -> None:
    clock = FixedClock(0.0)
    ledger = Ledger(Instruments(CollectorRegistry()), clock)
    for minute in range(100):
        clock.seconds = minute * 60.0
        ledger.refused(WEB, Outcome.TOO_LARGE, f"example {minute}", "traces")
    (entry,) = ledger.recent().requests.values()
    assert (entry.count, entry.since(clock.seconds - 600), len(entry.minutes), entry.first, entry.example) == (
        100, 11, 60, 0.0, "example 99",
    )  # fmt: skip


def test_the_record_is_bounded_and_strangers_do_not_push_out_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_ENTRIES", 50)
    ledger = Ledger(Instruments(CollectorRegistry()), FixedClock())
    ledger.refused(WEB, Outcome.MALFORMED, "mine", "traces")
    for number in range(500):
        ledger.refused(Sender("http", path=f"/{number}"), Outcome.NOT_FOUND, "")
        ledger.arrived(WEB, Signal.TRACES, "stored", rows(f"service {number}"))
    recent = ledger.recent()
    assert (len(recent.requests), len(recent.sources), recent.forgotten) == (51, 50, 900)
    assert "mine" in {entry.example for entry in recent.requests.values()}


def test_one_request_cannot_fill_the_record() -> None:
    ledger = Ledger(Instruments(CollectorRegistry()), FixedClock())
    ledger.arrived(WEB, Signal.TRACES, "stored", rows(*(f"service {number}" for number in range(5000))))
    assert len(ledger.recent().sources) == 20


def test_what_a_broken_body_said_is_told_to_its_sender_alone() -> None:
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"my secret"}]}]}]}'
    receiver = OtlpReceiver(OtlpSettings(), FaultyStore(1).submit, FixedClock(), Instruments(CollectorRegistry()), KEY)
    outcome = asyncio.run(receiver.receive(body, "application/json", None, WEB))
    receiver.close()
    (entry,) = receiver.ledger.recent().requests.values()
    assert (outcome.outcome, "secret" in outcome.message) == ("malformed", True)
    assert entry.example == "the JSON body is not ExportTraceServiceRequest"
