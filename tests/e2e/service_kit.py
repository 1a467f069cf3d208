"""The real service in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class RunningService:
    """`tidegauge serve` over a directory; `kill` is `kill -9`, `start` after it a restart."""

    def __init__(self, directory: Path, **configuration: Any) -> None:
        self.directory = directory
        self.data = directory / "data"
        http, grpc, otlp = free_ports(3)
        self.url = f"http://127.0.0.1:{http}"
        self.otlp_url = f"http://127.0.0.1:{otlp}"
        self.grpc = f"127.0.0.1:{grpc}"
        self.config = directory / "tidegauge.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "listen": f"127.0.0.1:{http}",
                    "otlp_grpc": self.grpc,
                    "otlp_http": f"127.0.0.1:{otlp}",
                    "data": str(self.data),
                    **configuration,
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 40.0) -> None:
        """Returns once it is ready."""
        self._start("/readyz", timeout)

    def start_unready(self, timeout: float = 40.0) -> None:
        """Returns once it answers."""
        self._start("/healthz", timeout)

    def _start(self, path: str, timeout: float) -> None:
        log = (self.directory / "service.log").open("ab")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("tidegauge")), "serve", "-c", str(self.config)],
            stdout=log,
            stderr=log,
            cwd=self.directory,
        )
        log.close()
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended at its start:\n{self.log()}")
            try:
                self.get(path)
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise AssertionError(f"the service is not ready after {timeout} s:\n{self.log()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the service did not end when told to:\n{self.log()}") from None

    def log(self) -> str:
        return (self.directory / "service.log").read_text()[-5000:]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["content-type"] else body.decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that carry the labels."""
        from prometheus_client.parser import text_string_to_metric_families

        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total
