"""Rooms know only whom they may know."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_contracts_between_rooms_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "Contracts: 2 kept, 0 broken." in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
