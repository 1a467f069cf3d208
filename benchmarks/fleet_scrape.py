"""What a fleet of scraped targets costs the whole service: processor, memory, scrapes that did not happen.

python benchmarks/fleet_scrape.py [--targets 1000] [--interval 15] [--minutes 1] [--bad 20] [--prometheus]

Every target serves the recorded vLLM from an address of its own (benchmarks/fleet_targets.py, a process whose cost is
not counted).  Of each `--bad` targets one hangs, one sends garbage and one brings new label values with every scrape;
0 leaves them all good.  `/metrics` is read once an interval, as Prometheus would, and `/healthz` every 50 ms: how late
it answers is how long the event loop was held up.  `--prometheus` lets the Prometheus of the machine scrape the same
fleet afterwards.  Exits 1 if a scrape of a good target is missing.  Linux; 1,000 targets need 3,000 open files.
"""

import argparse
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

from fleet_targets import SCRAPES, host, kind_of
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
READY_SECONDS = 60.0
PROBE_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass
class Seen:
    """What was measured of one scraper."""

    seconds: float = 0.0
    cores: float = 0.0
    rss: float = 0.0  # bytes, highest
    late: list[float] = field(default_factory=list)  # seconds that /healthz took
    reads: list[tuple[float, int]] = field(default_factory=list)  # seconds and bytes of /metrics


def main() -> int:
    """Runs, prints, and says by its exit code whether a scrape is missing."""
    arguments = parsed()
    every = arguments.bad
    with tempfile.TemporaryDirectory() as folder:
        missed = measured("tidegauge", tidegauge, arguments, Path(folder) / "t", every)
        if arguments.prometheus and shutil.which("prometheus"):
            measured("prometheus", prometheus, arguments, Path(folder) / "p", every)
    print(f"prometheus_client's parser alone, a scrape: {1000 * parser_seconds():.2f} ms")
    return int(missed > 0)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=15.0)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--bad", type=int, default=20)
    parser.add_argument("--prometheus", action="store_true")
    return parser.parse_args()


Start = Callable[[argparse.Namespace, Path, int], tuple["subprocess.Popen[bytes]", str]]


def measured(name: str, start: Start, arguments: argparse.Namespace, folder: Path, every: int) -> int:
    """Measures one scraper on a fleet of its own and prints it; the number of missed scrapes of good targets."""
    folder.mkdir()
    with fleet(every) as (port, asked):
        process, url = start(arguments, folder, port)
        try:
            time.sleep(1.5 * arguments.interval)  # imports, first scrapes and connections are not the steady state
            seen = watched(process.pid, url, 60 * arguments.minutes, arguments.interval)
            durations = scrape_durations(url) if name == "tidegauge" else []
        finally:
            process.terminate()
            process.wait(30)
        times = asked()
    missed, scrapes = gaps(times, arguments, every)
    show(name, arguments, seen, durations, missed, scrapes)
    return missed


@contextmanager
def fleet(every: int) -> Iterator[tuple[int, Callable[[], dict[int, list[float]]]]]:
    """A running fleet: its port, and how to end it and learn when each target was asked."""
    port = free_port()
    command = [sys.executable, str(HERE / "fleet_targets.py"), str(port), str(every)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    def asked() -> dict[int, list[float]]:
        answer, _ = process.communicate("", timeout=60)
        return {int(number): times for number, times in json.loads(answer).items()}

    try:
        yield port, asked
    finally:
        process.kill()


def tidegauge(arguments: argparse.Namespace, folder: Path, port: int) -> tuple["subprocess.Popen[bytes]", str]:
    """The service, ready."""
    listen, http, grpc = (f"127.0.0.1:{free_port()}" for _ in range(3))
    targets = [{"targets": [f"{host(number)}:{port}" for number in range(arguments.targets)]}]
    (folder / "targets.json").write_text(json.dumps(targets))
    config = {
        "listen": listen,
        "otlp_http": http,
        "otlp_grpc": grpc,
        "data": str(folder / "data"),
        "scrape": {"interval": arguments.interval, "file_sd": [str(folder / "targets.json")]},
    }
    (folder / "tidegauge.yaml").write_text(json.dumps(config))
    command = [str(Path(sys.executable).parent / "tidegauge"), "serve", "-c", str(folder / "tidegauge.yaml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    wait_for(f"http://{listen}/readyz")
    return process, f"http://{listen}"


def prometheus(arguments: argparse.Namespace, folder: Path, port: int) -> tuple["subprocess.Popen[bytes]", str]:
    """Prometheus scraping the same."""
    addresses = [f"{host(number)}:{port}" for number in range(arguments.targets)]
    interval = f"{int(1000 * arguments.interval)}ms"
    job = {"job_name": "fleet", "sample_limit": 20_000, "static_configs": [{"targets": addresses}]}
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    listen = f"127.0.0.1:{free_port()}"
    flags = {"config.file": "prometheus.yml", "storage.tsdb.path": "data", "web.listen-address": listen}
    command = ["prometheus", *(f"--{name}={value}" for name, value in flags.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stderr=log, stdout=log)
    wait_for(f"http://{listen}/-/ready")
    return process, f"http://{listen}"


def watched(pid: int, url: str, seconds: float, interval: float) -> Seen:
    """What the process uses over a time."""
    seen = Seen()
    began, used = time.perf_counter(), processor(pid)
    read_at = began
    while (now := time.perf_counter()) - began < seconds:
        seen.late.append(asked(f"{url}/healthz")[0])
        if now >= read_at:
            seen.reads.append(asked(f"{url}/metrics"))
            read_at += interval
        seen.rss = max(seen.rss, resident(pid))
        time.sleep(PROBE_SECONDS)
    seen.seconds = time.perf_counter() - began
    seen.cores = (processor(pid) - used) / seen.seconds
    return seen


def asked(url: str) -> tuple[float, int]:
    """Seconds and bytes of an answer, whatever its status."""
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            size = len(answer.read())
    except urllib.error.HTTPError:
        size = 0
    return time.perf_counter() - began, size


def processor(pid: int) -> float:
    """Processor seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def resident(pid: int) -> float:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))


def scrape_durations(url: str) -> list[float]:
    """The last scrape's duration of each target that is up."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    up = {line.split('"')[1] for line in lines if line.startswith("tidegauge_target_up{") and line.endswith(" 1.0")}
    name = 'tidegauge_scrape_duration_seconds{target="'
    return [float(line.split()[-1]) for line in lines if line.startswith(name) and line.split('"')[1] in up]


def gaps(times: dict[int, list[float]], arguments: argparse.Namespace, every: int) -> tuple[int, int]:
    """Scrapes of good targets that did not come, and those that did."""
    good = [number for number in range(arguments.targets) if kind_of(number, every) == "good"]
    end = max(max(asked) for asked in times.values())
    missed = 0
    for number in good:
        moments = [*times.get(number, [0.0]), end]
        between = [later - earlier for earlier, later in pairwise(moments)]
        missed += sum(max(0, round(gap / arguments.interval) - 1) for gap in between)
    return missed, sum(len(times.get(number, [])) for number in good)


def show(name: str, arguments: argparse.Namespace, seen: Seen, took: list[float], missed: int, scrapes: int) -> None:
    """Prints what was measured."""
    rate = arguments.targets / arguments.interval
    print(f"{name}: {arguments.targets} targets every {arguments.interval:g} s, watched for {seen.seconds:.0f} s")
    print(f"  processor        {seen.cores:.3f} cores, {1000 * seen.cores / rate:.2f} ms a scrape")
    print(f"  memory           {seen.rss / MIB:.0f} MiB")
    print(f"  missed           {missed} of {missed + scrapes} scrapes of good targets")
    if took:
        print(f"  scrape took      p50 {1000 * at(took, 50):.0f} ms, p99 {1000 * at(took, 99):.0f} ms")
    print(f"  /healthz         p99 {1000 * at(seen.late, 99):.0f} ms, worst {1000 * max(seen.late):.0f} ms")
    slowest, size = max(seen.reads)
    print(f"  /metrics         {size / MIB:.1f} MiB in at most {slowest:.2f} s")


def at(values: list[float], percent: int) -> float:
    """A percentile."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def parser_seconds() -> float:
    """Processor time that prometheus_client's parser takes for one of these scrapes."""
    texts = [gzip.decompress(path.read_bytes()).decode() for path in sorted(SCRAPES.glob("*.gz"))[::8]]
    began = time.process_time()
    for text in texts:
        list(text_string_to_metric_families(text))
    return (time.process_time() - began) / len(texts)


def wait_for(url: str) -> None:
    """Returns when `url` answers 200.  Raises TimeoutError."""
    end = time.perf_counter() + READY_SECONDS
    while time.perf_counter() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
