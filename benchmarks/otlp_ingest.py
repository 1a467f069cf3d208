"""Spans a second that are stored, time to the acknowledgement, and what a crash leaves: Tidegauge beside its peers.

    python -m benchmarks.otlp_ingest [--seconds 30] [--peers phoenix mlflow] [--json]

Each server gets the same load (spans of 1.5 KB, 200 a request, four senders, one after another), and `kill -9` the
moment the load ends: what its database then holds is stored, what was acknowledged and is not there is lost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.peers import MLFLOW, PHOENIX, TIDEGAUGE, Peer, Running

PEERS = {peer.name: peer for peer in (PHOENIX, MLFLOW)}
CACHE = Path.home() / ".cache" / "tidegauge-benchmarks"
LIMITLESS = 10**9


class Memory(threading.Thread):
    """Follows the resident memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._ending = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._ending.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, self._now())

    def _now(self) -> int:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    def stop(self) -> int:
        """Ends; gives the peak in bytes."""
        self._ending.set()
        self.join()
        return self.peak_bytes


def load(url: str, headers: dict[str, str], seconds: float, spans: int, ids: Path, extra: Sequence[str] = ()) -> Any:
    """Runs the load in a process of its own; gives its summary."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, "--seconds", str(seconds), "--spans", str(spans)]
    command += [*(f"--header={name}:{value}" for name, value in headers.items()), "--ids", str(ids), *extra]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


def measure(peer: Peer, seconds: float, spans: int, cache: Path, home: Path) -> dict[str, Any]:
    """One server under the load, killed at its end."""
    running = Running(peer, cache, home / "data")
    running.start()
    try:
        assert running.process is not None
        memory = Memory(running.process.pid)
        memory.start()
        summary = load(running.url + "/v1/traces", dict(peer.headers), seconds, spans, home / "ids")
        peak = memory.stop()
    finally:
        running.kill()
    acknowledged = set((home / "ids").read_text().split())
    stored = Counter(running.stored())
    return {
        "server": peer.name,
        **summary,
        "stored": stored.total(),
        "stored_per_second": round(stored.total() / summary["seconds"]),
        "lost": len(acknowledged - stored.keys()),
        "doubled": stored.total() - len(stored),
        "peak_rss_mb": round(peak / 1e6),
    }


def show(results: Sequence[dict[str, Any]]) -> None:
    """As a table."""
    columns = (
        "server spans_per_second stored_per_second p50_ms p99_ms max_ms lost doubled peak_rss_mb other_answers".split()
    )
    table = Table(*columns)
    for result in results:
        table.add_row(*(str(result[column]) for column in columns))
    Console(width=160).print(table)
    ours, others = results[0], results[1:]
    if others:
        best = max(others, key=lambda result: float(result["stored_per_second"]))
        times = ours["stored_per_second"] / max(1, best["stored_per_second"])
        print(f"Tidegauge stores {times:.0f} times what {best['server']} stores")


def main() -> None:
    """Reads the command line, measures one server after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--spans", type=int, default=LIMITLESS, help="at most, for each server")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where peers are installed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = []
    for peer in (TIDEGAUGE, *(PEERS[name] for name in args.peers)):
        with tempfile.TemporaryDirectory() as home:
            results.append(measure(peer, args.seconds, args.spans, args.cache, Path(home)))
    if args.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
