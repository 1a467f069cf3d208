"""How long reads take over a large store, at rest and while ingest runs.

    python -m benchmarks.queries [--spans 10000000] [--rate 10000] [--calls 100] [--data DIR]

Fills a directory (see make_store.py), or takes one that it filled before, starts the service over it, and asks, with
parameters that differ from call to call: first at rest, then under a load of spans at the given rate.  The last column
is the physical limit: DuckDB's aggregate over the one column that decides, with the service's memory and threads.
"""

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import duckdb
from rich.console import Console
from rich.table import Table

from benchmarks.make_store import SCORE_DAYS, STATE_DAYS, Shape, make
from benchmarks.otlp_ingest import CACHE, Memory
from benchmarks.peers import TIDEGAUGE, Running
from store.database import FILE

DAY = 86400.0
WARM_UP_SECONDS = 3.0
SERVICE = {"memory_limit": "300MB", "threads": 2}
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Known:
    """What is in the store, to ask for."""

    spans: int
    until: float
    days: float
    recent: list[str]
    old: list[str]


def known(data: Path) -> Known:
    """Looks into the store before the service has it."""
    with duckdb.connect(str(data / FILE), config=SERVICE) as connection:
        ((spans, first, last),) = connection.execute(
            "SELECT count(*), min(epoch(end_time)), max(epoch(end_time)) FROM spans WHERE service <> 'load'"
        ).fetchall()
        sample = "SELECT trace_id FROM spans WHERE is_request AND epoch(end_time) {} USING SAMPLE 2000 (reservoir, 7)"
        recent, old = (
            [trace for (trace,) in connection.execute(sample.format(f"{sign} {last - STATE_DAYS * DAY}")).fetchall()]
            for sign in (">", "<=")
        )
    return Known(spans, last, (last - first) / DAY, recent, old)


def limits(data: Path, store: Known) -> dict[str, float]:
    """Milliseconds of the plain aggregates, warm."""
    day = f"to_timestamp({store.until - DAY})"
    plain = {
        "requests": f"SELECT count(*) FROM spans WHERE tenant = 'tenant-3' AND start_time >= {day}",
        "summary": f"SELECT avg(value) FROM scores WHERE subject_time >= {day}",
        "trace": f"SELECT count(*) FROM spans WHERE trace_id = '{store.old[0]}'",
    }
    found = {}
    with duckdb.connect(str(data / FILE), config=SERVICE) as connection:
        for name, sql in plain.items():
            times = []
            for _ in range(4):
                began = time.perf_counter()
                connection.execute(sql).fetchall()
                times.append((time.perf_counter() - began) * 1000)
            found[name] = min(times)
    return found


def rfc3339(seconds: float) -> str:
    """What the API takes."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def paths(store: Known, rng: random.Random) -> dict[str, Callable[[], str]]:
    """The queries, each made anew for every call."""

    def tenant() -> str:
        return f"tenant-{rng.randrange(20)}"

    def requests() -> str:
        length = rng.choice([3600.0, 6 * 3600.0, DAY])
        end = store.until - rng.random() * (store.days * DAY - length)
        given = {"tenant": tenant(), "from": rfc3339(end - length), "to": rfc3339(end), "limit": 100}
        return "/api/v1/requests?" + urlencode(given)

    def summary() -> str:
        end = store.until - rng.random() * (SCORE_DAYS - 1) * DAY
        given = {"from": rfc3339(end - DAY), "to": rfc3339(end), "group_by": "model", "interval": "5m"}
        return "/api/v1/scores/summary?" + urlencode(given if rng.random() < 0.7 else {**given, "tenant": tenant()})

    def window(path: str, seconds: float, **more: str) -> str:
        return f"{path}?" + urlencode({"from": rfc3339(store.until - seconds), "to": rfc3339(store.until), **more})

    return {
        "requests": requests,
        "summary": summary,
        "trace": lambda: f"/api/v1/requests/{rng.choice(store.recent)}",
        "trace of an old day": lambda: f"/api/v1/requests/{rng.choice(store.old)}",
        "next page": lambda: requests() + "&sort=oldest",
        "slowest of a day": lambda: window("/api/v1/requests", DAY, tenant=tenant(), sort="duration"),
        "usage of a day": lambda: window("/api/v1/usage", DAY),
        "console: overview": lambda: "/",
        "console: requests": lambda: "/requests?" + urlencode({"tenant": tenant()}),
        "console: a request": lambda: f"/requests/{rng.choice(store.recent)}",
    }


class Client:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)

    def get(self, path: str) -> tuple[float, bytes]:
        """Milliseconds and body.  Raises RuntimeError for an answer that is none."""
        began = time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:300]!r}")
        return took, body


def ask(client: Client, makers: dict[str, Callable[[], str]], calls: int) -> dict[str, list[float]]:
    """Milliseconds by query, the queries in turn."""
    found: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(calls):
        for name, maker in makers.items():
            found[name].append(client.get(maker())[0])
    return found


@contextmanager
def ingest(url: str, rate: float) -> Iterator[subprocess.Popen[bytes]]:
    """A load of spans beside; its summary is on its stdout once it is ended."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", f"{url}/v1/traces", "--rate", str(rate)]
    command += ["--seconds", "600", "--spans", str(10**9)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    try:
        time.sleep(WARM_UP_SECONDS)
        yield process
    finally:
        process.terminate()
        process.wait()


def stored(client: Client) -> float:
    """Spans that the service says it has stored."""
    _, body = client.get("/metrics")
    lines = body.decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith('tidegauge_store_rows_total{table="spans"}')
    )


def percentiles(times: list[float]) -> dict[str, float]:
    """Of milliseconds."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "max_ms": max(times), "first_ms": times[0]}


def measure(data: Path, rate: float, calls: int, seed: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """All queries at rest and under load, over a filled directory."""
    store = known(data)
    found: dict[str, Any] = {"spans": store.spans, "limits_ms": limits(data, store)}
    makers = {name: maker for name, maker in paths(store, random.Random(seed)).items() if not only or name in only}
    running = Running(TIDEGAUGE, CACHE, data)
    found["ready_s"] = running.start()
    try:
        assert running.process is not None
        memory = Memory(running.process.pid)
        memory.start()
        client = Client(running.url)
        found["at rest"] = {name: percentiles(times) for name, times in ask(client, makers, calls).items()}
        with ingest(running.url, rate):
            before, began = stored(client), time.perf_counter()
            found["under load"] = {name: percentiles(times) for name, times in ask(client, makers, calls).items()}
            found["spans_per_second"] = (stored(client) - before) / (time.perf_counter() - began)
        found["peak_rss_mb"] = memory.stop() / 1e6
    finally:
        running.kill()
    return found


def show(found: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"Milliseconds over {found['spans']:,} spans; load {found['spans_per_second']:,.0f} spans/s")
    columns = ("p50_ms", "p95_ms", "max_ms", "first_ms")
    table.add_column("query")
    for phase in ("at rest", "under load"):
        for column in columns:
            table.add_column(f"{phase}\n{column.removesuffix('_ms')}", justify="right")
    table.add_column("plain\naggregate", justify="right")
    for name in found["at rest"]:
        cells = [
            f"{phase[name][column]:.0f}" for phase in (found["at rest"], found["under load"]) for column in columns
        ]
        limit = found["limits_ms"].get(name)
        table.add_row(name, *cells, "" if limit is None else f"{limit:.0f}")
    console = Console(width=140)
    console.print(table)
    console.print(f"ready after {found['ready_s']:.1f} s, at most {found['peak_rss_mb']:.0f} MB resident")


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=10_000, help="spans a second while reading")
    parser.add_argument("--calls", type=int, default=100, help="of each query, at rest and under load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a directory to fill, or filled before; kept (else a temporary one)")
    parser.add_argument("--only", nargs="+", default=(), metavar="QUERY", help="of the queries in the table")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or Path(temporary) / "data"
        if not (data / FILE).exists():
            make(data, Shape(args.spans, time.time(), seed=args.seed), lambda text: print(text, file=sys.stderr))
        found = measure(data, args.rate, args.calls, args.seed, args.only)
    print(json.dumps(found)) if args.json else show(found)


if __name__ == "__main__":
    main()
