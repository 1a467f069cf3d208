"""`tidegauge check --live` beside the running service."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.service_kit import RunningService


def test_check_live_counts_what_only_the_running_service_knows(tmp_path: Path) -> None:
    service = RunningService(tmp_path)
    with service:
        beside = _silent(service)
    alone = _silent(service)
    assert "Tidegauge itself / Spans" in alone - beside
    assert beside < alone


def _silent(service: RunningService) -> set[str]:
    program = Path(sys.executable).with_name("tidegauge")
    done = subprocess.run(
        [program, "check", "-c", service.config, "--live", "--json"], capture_output=True, text=True, check=True
    )
    return {item["where"] for item in json.loads(done.stdout)["silent"]}
