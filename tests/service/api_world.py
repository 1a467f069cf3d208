"""A store with two tenants' requests, an engine and its ticks, and the real application over it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest

from catalog.instruments import Instruments
from collector.otlp.ledger import Ledger
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.sender import Sender
from service.api.app import build_api
from service.auth import KeyStore
from service.context import Context
from store.batch import Batch
from store.database import Database
from store.reads import Reads
from store.settings import StoreSettings
from store.tables import TABLES
from store.writer import Writer

NOW = 1_800_000_000.0
ADDRESS = "http://127.0.0.1:8433"
TARGET = "gpu-1:8000"
MODEL = "llama"


@dataclass
class SetClock:
    """Time that a test sets."""

    seconds: float = NOW

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def trace_id(number: int) -> str:
    return f"{number:032x}"


def text_message(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def call(
    number: int, *, tenant: str = "a", start: float = NOW - 100, ttft: float | None = 0.5, **said: Any
) -> list[dict[str, Any]]:
    """A client's span and the engine's below it."""
    lasted = said.pop("duration_s", 2.0)
    client = {
        "trace_id": trace_id(number), "span_id": f"{number:016x}", "name": "chat", "kind": "llm", "vantage": "client",
        "start_time": at(start), "end_time": at(start + lasted), "duration_s": lasted, "service": "bot",
        "tenant": tenant, "request_model": MODEL, "status": "ok", "input_tokens": 10, "output_tokens": 20,
        "cost_usd": 0.5, "time_to_first_token_s": ttft, "session_id": f"session-{tenant}",
        "input_messages": text_message("user", f"secret of {tenant}"),
        "output_messages": text_message("assistant", f"answer to {tenant}"),
    } | said  # fmt: skip
    engine = {
        "trace_id": trace_id(number), "span_id": f"{number + 2**32:016x}", "parent_span_id": client["span_id"],
        "name": "llm_request", "kind": "llm", "vantage": "engine", "start_time": at(start + 0.01),
        "end_time": at(start + lasted - 0.01), "duration_s": lasted - 0.02, "service": "vllm", "instance": TARGET,
        "response_model": MODEL, "status": "ok", "time_to_first_token_s": ttft, "queue_time_s": 0.3,
    }  # fmt: skip
    return [client, engine]


def tick(time: float, waiting: float, preemptions: float, target: str = TARGET) -> dict[str, Any]:
    return {
        "time": at(time), "target": target, "engine": "vllm", "model": MODEL, "rank": "0", "instance": target,
        "requests_waiting": waiting, "requests_running": 8.0, "kv_cache_usage_ratio": min(waiting / 100, 1.0),
        "preemptions": preemptions,
    }  # fmt: skip


@dataclass
class World:
    """The parts a test speaks to."""

    context: Context
    app: FastAPI
    keys: KeyStore
    clock: SetClock
    database: Database
    problems: list[str] = field(default_factory=list)

    def put(self, table: str, rows: list[dict[str, Any]]) -> None:
        names = {name for row in rows for name in row}
        schema = pa.schema([part for part in TABLES[table] if part.name in names])
        batch = Batch({table: pa.Table.from_pylist(rows, schema=schema)})
        self.context.writer.submit(batch).result(30)

    def calls(self, *calls: list[dict[str, Any]]) -> None:
        self.put("spans", [span for spans in calls for span in spans])

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ADDRESS, headers=headers)

    async def get(self, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        async with self.client(key, **headers) as client:
            return await client.get(path)

    async def post(self, path: str, body: Any, key: str | None = None, **headers: str) -> httpx.Response:
        async with self.client(key, **headers) as client:
            return await client.post(path, json=body)

    async def json(self, path: str, key: str | None = None) -> Any:
        response = await self.get(path, key)
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Opens everything, and closes it."""
    clock, registry, problems = SetClock(), CollectorRegistry(), list[str]()
    metrics = Instruments(registry)
    database = Database(directory, StoreSettings(threads=1))
    writer = Writer(database, clock, metrics, StoreSettings())
    context = Context(
        reads=Reads(database), writer=writer, clock=clock, metrics=metrics, public_url=ADDRESS,
        version="9.9", render_metrics=lambda accept: (generate_latest(registry), "text/plain; version=0.0.4"),
        targets=lambda: [{"name": TARGET, "url": f"http://{TARGET}/metrics", "labels": {}, "up": True}],
        gpus=list, evaluators=lambda: [{"name": "refusal", "version": "1"}], signals=lambda: [{"name": "refusal"}],
        problems=lambda: problems, ledger=Ledger(metrics, clock),
    )  # fmt: skip
    keys = KeyStore(directory, clock)
    try:
        yield World(context, build_api(context, keys), keys, clock, database, problems)
    finally:
        writer.close()
        database.close()


def two_tenants(here: World) -> None:
    """Requests, scores, drift, incidents and ticks of tenants a and b."""
    here.calls(call(1, tenant="a"), call(2, tenant="b"))
    here.put(
        "scores",
        [
            {
                "score_id": f"score-{tenant}", "subject_type": "span", "subject_id": f"{trace_id(n)}:{n:016x}",
                "trace_id": trace_id(n), "span_id": f"{n:016x}", "evaluator": f"refusal-{tenant}", "version": "1",
                "value": 1.0, "explanation": f"secret of {tenant}", "status": "scored", "source": "online",
                "subject_time": at(NOW - 98), "tenant": tenant, "request_model": MODEL,
            }
            for n, tenant in ((1, "a"), (2, "b"))
        ],
    )  # fmt: skip
    here.put("drift_results", [drift_row(tenant) for tenant in ("a", "b")])
    here.put(
        "incidents",
        [
            {
                "incident_id": f"incident-{tenant}", "alertname": f"Alert-{tenant}", "status": "firing",
                "labels": json.dumps({"tenant": tenant}), "annotations": json.dumps({"summary": f"secret of {tenant}"}),
                "started_at": at(NOW - 50), "tenant": tenant, "context": json.dumps({"note": f"secret of {tenant}"}),
            }
            for tenant in ("a", "b")
        ],
    )  # fmt: skip
    for tenant in ("a", "b"):
        sender = Sender("http", "/v1/traces", "/v1/traces", f"key-{tenant}", frozenset({tenant}), f"secret of {tenant}")
        here.context.ledger.refused(sender, Outcome.TOO_LARGE, f"secret of {tenant}", "traces")
        here.context.ledger.noted(sender, Signal.TRACES, {"rejected: too_old": 1}, [f"secret of {tenant}"])
        rows = pa.table({"tenant": [tenant], "service": [f"secret of {tenant}"], "scope": ["s"]})
        here.context.ledger.arrived(Sender("http"), Signal.TRACES, "stored", rows)
    here.put("engine_state", [tick(NOW - 130 + second, second, second / 2) for second in range(60)])


def drift_row(tenant: str, **said: Any) -> dict[str, Any]:
    return {
        "result_id": f"result-{tenant}", "round_id": "1", "signal": "refusal", "slice": f"tenant={tenant}",
        "slice_values": json.dumps({"tenant": tenant}), "detector": "fisher", "comparison": "trailing",
        "round_time": at(NOW - 10), "window_start": at(NOW - 70), "window_end": at(NOW - 10),
        "reference_start": at(NOW - 600), "reference_end": at(NOW - 70), "n_current": 50, "n_reference": 500,
        "p_value": 0.001, "effect_size": 0.2, "effect_low": 0.1, "effect_high": 0.3, "effect_unit": "share",
        "current_mean": 0.4, "reference_mean": 0.2, "decision": "drift", "state": "confirmed", "since": at(NOW - 60),
        "evidence": json.dumps({
            "distributions": {"reference": {"hits": 100, "n": 500}, "current": {"hits": 20, "n": 50}},
            "worst_samples": [trace_id(1)], "note": f"secret of {tenant}", "resume": {"calm": 1},
        }),
    } | said  # fmt: skip
