"""The main job on the recording that ships: one run, looked at from all sides.

What really happened when is known (the recording's timeline): in seconds from its start, the bank's support prompt
turns to version 2 at 360 and back at 600, and the engine is overloaded from 720.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.config import Config
from service.demo import Demo, shipped_recording
from service.replay.recording import Recording

# The replay takes under a minute on two idle cores; the machine may have other work.
pytestmark = pytest.mark.timeout(600)
NEW_PROMPT, ROLLED_BACK, OVERLOAD = 360.2, 600.2, 720.4
REQUESTS, FAILED, SPANS = 4944, 23, 14_813


class Run:
    """A finished demo: its summary, and its API while it is up."""

    def __init__(self, demo: Demo, summary: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.demo = demo
        self.summary = summary
        self._loop = loop

    def get(self, path: str) -> Any:
        async def ask() -> Any:
            transport = httpx.ASGITransport(self.demo.service.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8433") as client:
                answer = await client.get(path)
                assert answer.status_code == 200, answer.text
                return answer.json()

        return self._loop.run_until_complete(ask())

    def seconds(self, when: str) -> float:
        """Seconds of the recording's own time, from its start."""
        moved = self.summary["moved_by_seconds"]
        return datetime.fromisoformat(when).timestamp() - moved - self.demo.recording.started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    data: Path = tmp_path_factory.mktemp("demo") / "data"
    demo = Demo.prepare(Config(data=data), Recording(shipped_recording()), speed=10_000.0)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(demo.run())
        yield Run(demo, demo.summary(), loop)
    finally:
        loop.run_until_complete(demo.service.stop())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_everything_is_stored_and_each_request_counted_once(run: Run) -> None:
    counts = {key: run.summary[key] for key in ("requests", "failed_requests", "spans", "refused_exports")}
    assert counts == {"requests": REQUESTS, "failed_requests": FAILED, "spans": SPANS, "refused_exports": {}}


def test_the_finding_names_tenant_prompt_version_and_time(run: Run) -> None:
    assert [
        (item["signal"], item["slice"]["tenant"], item["slice"]["prompt_version"]) for item in run.summary["findings"]
    ] == [("refusal", "bank", "2")]
    finding = run.summary["findings"][0]
    low, high = finding["interval"]
    assert abs(run.seconds(finding["start"]) - NEW_PROMPT) < 60
    assert 0.05 < low < finding["effect"] < high
    assert finding["state"] == "resolved"
    assert ROLLED_BACK < run.seconds(finding["end"]) < OVERLOAD + 60


def test_the_overload_pages_and_ends(run: Run) -> None:
    assert run.summary["alerts_missing"] is None
    pages = {item["name"]: item for item in run.summary["alerts"] if item["severity"] == "page"}
    queue = pages["LLMEngineQueueLong"]
    assert OVERLOAD < run.seconds(queue["started"]) < OVERLOAD + 120
    assert queue["labels"]["target"] == "gpu-node-1:8000"
    assert queue["ended"] is not None
    assert "LLMTimeToFirstTokenHigh" in pages


def test_nothing_pages_before_anything_happened(run: Run) -> None:
    early = [item["name"] for item in run.summary["alerts"] if run.seconds(item["started"]) < NEW_PROMPT]
    assert early == []


def test_the_summary_says_what_the_overload_did_to_time_to_first_token(run: Run) -> None:
    (row,) = run.summary["latency"]
    times = row["time_to_first_token_s"]
    assert times["median_of_other_minutes"] < 0.2 < 20 < times["median_in_worst_minute"]
    assert row["peak_requests_waiting"] > 500
    assert row["peak_kv_cache_usage_ratio"] == 1.0


def test_a_request_of_the_overload_shows_the_queue_at_that_second(run: Run) -> None:
    worst = run.get("/api/v1/requests?sort=time_to_first_token&status=ok&service=support-bot&limit=1")["requests"][0]
    shown = run.get(f"/api/v1/requests/{worst['trace_id']}")
    vantages = {span["vantage"] for span in shown["spans"] if span["kind"] == "llm"}
    assert vantages == {"client", "engine"}
    request = shown["requests"][0]
    (engine_view,) = request["engine"]["targets"]
    assert request["engine"]["certain"] is True
    assert engine_view["at"]["start"]["requests_waiting"] > 100, engine_view
    client = next(span for span in shown["spans"] if span["vantage"] == "client" and span["kind"] == "llm")
    assert client["input_messages"][0]["role"] == "system"
    assert client["output_messages"][0]["parts"][0]["content"]
    assert {score["evaluator"] for score in shown["scores"]} >= {"refusal", "length", "repetition"}
    engine = next(span for span in shown["spans"] if span["vantage"] == "engine")
    assert engine["queue_time_s"] > 10


def test_the_gpu_is_a_card_of_its_own(run: Run) -> None:
    gpus = run.get("/api/v1/targets")["gpus"]
    assert [gpu["gpu_model"] for gpu in gpus] == ["NVIDIA H100 80GB HBM3"]
    worst = run.get("/api/v1/requests?sort=time_to_first_token&limit=1")["requests"][0]
    request = run.get(f"/api/v1/requests/{worst['trace_id']}")["requests"][0]
    assert request["gpu"]["gpus"] == [], "the card served none of these requests"


def test_the_console_and_metrics_know_the_same(run: Run) -> None:
    summary = run.get("/api/v1/scores/summary?group_by=evaluator&from=-1h")
    assert {row["evaluator"] for row in summary["summary"]} >= {"refusal", "json_validity", "length", "repetition"}
    body, _ = run.demo.service.served.render()
    assert b'tidegauge_eval_score_mean{evaluator="refusal"' in body


def test_what_fired_is_an_incident_with_what_went_on_then(run: Run) -> None:
    incidents = run.get("/api/v1/incidents")["incidents"]
    assert {item["alertname"] for item in incidents} == {item["name"] for item in run.summary["alerts"]}
    queue = next(item for item in incidents if item["alertname"] == "LLMEngineQueueLong")
    shown = run.get(f"/api/v1/incidents/{queue['incident_id']}")
    assert shown["context"]["engines_at_start"][0]["requests_waiting"] > 100
