"""The disk fills up under load: nothing that was acknowledged is lost or doubled, and it ends by itself."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.binaries import wait_for
from tests.e2e import span_senders
from tests.e2e.service_kit import RunningService
from tests.e2e.small_disk import MIB, small_disk

pytestmark = pytest.mark.timeout(400)
SENDERS = 3
CONTENT_BYTES = 8_000


def readiness(service: RunningService) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{service.url}/readyz", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def refuses(service: RunningService) -> list[str]:
    status, body = readiness(service)
    return list(body["problems"]) if status == 503 else []


# The reserve stops it in time; without one DuckDB meets the end of the disk in its log, or in a checkpoint.
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"min_free_bytes": 8 * MIB}, id="reserve"),
        pytest.param({"min_free_bytes": 0}, id="log", marks=pytest.mark.slow),
        pytest.param({"min_free_bytes": 0, "checkpoint_threshold": "2MB"}, id="checkpoint"),
    ],
)
def test_full_disk_under_load_loses_and_doubles_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    service = RunningService(tmp_path, store=settings)
    with small_disk(service.data, 400 * MIB, 16 * MIB) as disk, service:
        assert service.process is not None
        senders = span_senders.start(service.otlp_url, SENDERS, CONTENT_BYTES)
        wait_for("load", lambda: all(sender.acknowledged for sender in senders), 30)
        disk.shrink(service.process.pid)
        [problem] = wait_for("a refusal", lambda: refuses(service), 60)
        assert problem.startswith("store: ")
        wait_for("refused senders", lambda: all(sender.refusals[503] for sender in senders), 30)
        assert {sender.retry_after is not None for sender in senders} == {True}
        read = service.get("/api/v1/requests?limit=3")
        assert len(read["requests"]) == 3, "reads do not go on"

        service.kill()
        service.start_unready()
        assert len(service.get("/api/v1/requests?limit=3")["requests"]) == 3, "it does not start on a full disk"

        disk.grow(service.process.pid)
        before = [len(sender.acknowledged) for sender in senders]
        wait_for(
            "ingest again",
            lambda: all(len(sender.acknowledged) > count for sender, count in zip(senders, before, strict=True)),
            60,
        )
        wait_for("ready", lambda: readiness(service)[0] == 200, 30)
        time.sleep(0.5)
        acknowledged = span_senders.stop(senders)
        service.kill()
        stored = span_senders.stored(service.data)

    assert acknowledged - set(stored) == set()
    assert len(stored) == len(set(stored))
