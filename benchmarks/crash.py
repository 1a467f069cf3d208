"""What `kill -9`, or a full disk, at random moments under load leaves of what was acknowledged.

    python -m benchmarks.crash [--kills 20] [--seed 1]
    python -m benchmarks.crash --disk-mb 400    (root: fills a tmpfs of that size, then frees some of it)

The load goes on all the time and sends again what was left open, as exporters do.  Prints a line for each kill, then
the number of spans that were acknowledged, lost, and stored twice; exits 1 unless both last are 0.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.otlp_ingest import CACHE, LIMITLESS
from benchmarks.peers import TIDEGAUGE, Running

SETTLE_SECONDS = 3.0
BALLAST = "ballast"


@contextmanager
def load(url: str, ids: Path, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """The load as a process; it ends by itself after `seconds`."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--seconds", str(seconds)]
    command += ["--spans", str(LIMITLESS), "--retry", "--ids", str(ids)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def tmpfs(directory: Path, megabytes: int) -> Iterator[None]:
    """A small disk at `directory`."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def kills(running: Running, ids: Path, count: int, rng: random.Random) -> Any:
    """Kills and restarts under load; gives the load's summary."""
    running.start()
    length = count * 6.0 + 20
    with load(running.url + "/v1/traces", ids, length) as sending:
        for number in range(count):
            time.sleep(rng.uniform(0.3, 5.0))
            running.kill()
            ready = running.start()
            print(f"kill {number + 1}: ready again after {ready:.2f} s", flush=True)
        summary = sending.communicate()[0]
    return json.loads(summary)


def full_disk(running: Running, ids: Path, seconds: float) -> Any:
    """Lets the load fill the disk, frees some of it after half the time; gives the load's summary."""
    ballast = running.data / BALLAST
    ballast.write_bytes(b"\0" * 64_000_000)
    running.start()
    with load(running.url + "/v1/traces", ids, seconds) as sending:
        time.sleep(seconds / 2)
        ballast.unlink()
        summary = sending.communicate()[0]
    return json.loads(summary)


def report(running: Running, ids: Path, summary: Any) -> bool:
    """Prints what became of the acknowledged spans; whether none was lost or doubled."""
    time.sleep(SETTLE_SECONDS)
    running.kill()
    acknowledged = set(ids.read_text().split())
    stored = Counter(running.stored())
    lost = len(acknowledged - stored.keys())
    doubled = stored.total() - len(stored)
    print(json.dumps(summary))
    print(f"{len(acknowledged)} spans acknowledged, {stored.total()} stored, {lost} lost, {doubled} stored twice")
    return not lost and not doubled


def main() -> int:
    """Reads the command line, runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--disk-mb", type=int, help="fill a disk of this size instead of killing")
    parser.add_argument("--seconds", type=float, default=60, help="length of the load that fills the disk")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        running, ids = Running(TIDEGAUGE, CACHE, home / "disk"), home / "ids"
        if args.disk_mb:
            (home / "disk").rmdir()
            with tmpfs(home / "disk", args.disk_mb):
                try:
                    good = report(running, ids, full_disk(running, ids, args.seconds))
                finally:
                    running.kill()
        else:
            good = report(running, ids, kills(running, ids, args.kills, random.Random(args.seed)))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
