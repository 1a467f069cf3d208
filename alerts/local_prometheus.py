"""A real Prometheus over a recording: blocks made of OpenMetrics text, a server on loopback, ended with the block."""

import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alerts.promtool import binary

START_SECONDS = 30.0
STOP_SECONDS = 5.0
IMPORT_SECONDS = 300.0
# A recording may be older than any retention that one would set.
RETENTION = "100y"


class PrometheusFailedError(RuntimeError):
    """promtool could not import the recording, or Prometheus did not start on it."""


@contextmanager
def prometheus_over(recording: Path, lookback: str) -> Iterator[str]:
    """URL of a Prometheus that holds the OpenMetrics file's samples, at their own times."""
    with tempfile.TemporaryDirectory(prefix="tidegauge-backtest-") as folder:
        data = Path(folder) / "data"
        _import(recording, data)
        config = Path(folder) / "prometheus.yml"
        config.write_text("global: {}\n")
        log = Path(folder) / "prometheus.log"
        with _serving(config, data, lookback, log) as url:
            yield url


def _import(recording: Path, data: Path) -> None:
    command = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(recording), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    if done.returncode != 0:
        raise PrometheusFailedError(f"promtool cannot import {recording.name}: {(done.stderr or done.stdout).strip()}")


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(config: Path, data: Path, lookback: str, log: Path) -> Iterator[str]:
    port = free_port()
    command = [
        binary("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--query.lookback-delta={lookback}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log)
            yield url
        finally:
            stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the process, by force if it does not go."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise PrometheusFailedError(f"Prometheus did not start: {log.read_text()[-500:].strip()}")
