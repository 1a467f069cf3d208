"""The servers that the ingest benchmark runs, each in an environment and a directory of its own.

A peer is installed from the package index at its first run, under `--cache`.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

START_SECONDS = 180.0


@dataclass(frozen=True)
class Peer:
    """How to install, start and ask one server.

    In `command`, `{bin}` is the environment's directory of programs, `{data}` an empty directory, `{port}` and
    `{port2}` are free ports; `database` is within `{data}`.
    """

    name: str
    requirement: str | None  # None: this environment
    command: tuple[str, ...]
    ready: str
    database: str
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


TIDEGAUGE = Peer(
    "tidegauge",
    None,
    ("{bin}/tidegauge", "serve", "--data", "{data}"),
    "/readyz",
    "tidegauge.duckdb",
    environment={
        "TIDEGAUGE_LISTEN": "127.0.0.1:{port}",
        "TIDEGAUGE_OTLP_HTTP": "127.0.0.1:{port2}",
        "TIDEGAUGE_OTLP_GRPC": "127.0.0.1:{port3}",
    },
)
PHOENIX = Peer(
    "phoenix",
    "arize-phoenix==20.26.*",
    ("{bin}/phoenix", "serve"),
    "/healthz",
    "phoenix.db",
    environment={
        "PHOENIX_WORKING_DIR": "{data}",
        "PHOENIX_PORT": "{port}",
        "PHOENIX_GRPC_PORT": "{port2}",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    },
)
MLFLOW = Peer(
    "mlflow",
    "mlflow==3.17.*",
    (
        *("{bin}/mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "2"),
        *("--backend-store-uri", "sqlite:///{data}/mlflow.db", "--default-artifact-root", "{data}/artifacts"),
    ),
    "/health",
    "mlflow.db",
    headers={"x-mlflow-experiment-id": "0"},
    environment={"MLFLOW_DISABLE_TELEMETRY": "true"},
)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def programs(peer: Peer, cache: Path) -> Path:
    """The directory of the peer's programs; installs them if they are not there."""
    if peer.requirement is None:
        return Path(sys.executable).parent
    home = cache / peer.name
    done = home / ".installed"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        install = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", peer.requirement]
        subprocess.run(install, check=True)
        done.touch()
    return home / "bin"


class Running:
    """A started peer, all its processes in a group of their own."""

    def __init__(self, peer: Peer, cache: Path, data: Path) -> None:
        self.peer = peer
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        port, port2, port3 = free_ports(3)
        names = {"bin": str(programs(peer, cache)), "data": str(data), "port": port, "port2": port2, "port3": port3}
        self.url = f"http://127.0.0.1:{port}"
        self._command = [part.format(**names) for part in peer.command]
        self._environment = {key: value.format(**names) for key, value in peer.environment.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it; gives the seconds until it was ready."""
        began = time.perf_counter()
        with (self.data.parent / f"{self.peer.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                cwd=self.data,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while time.perf_counter() - began < START_SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.peer.name} ended at its start; its log is beside its data")
            try:
                urllib.request.urlopen(self.url + self.peer.ready, timeout=5).close()
                return time.perf_counter() - began
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise RuntimeError(f"{self.peer.name} is not ready after {START_SECONDS:.0f} s")

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stored(self) -> list[str]:
        """The trace ids of the spans in its database, one for each; the server must not run."""
        path = self.data / self.peer.database
        if path.suffix == ".duckdb":
            with duckdb.connect(str(path)) as connection:
                return [trace for (trace,) in connection.execute("SELECT trace_id FROM spans").fetchall()]
        with sqlite3.connect(path) as sqlite:
            return [_hex(trace) for (trace,) in sqlite.execute(STORED[self.peer.name])]


STORED = {
    "phoenix": "SELECT traces.trace_id FROM spans JOIN traces ON spans.trace_rowid = traces.id",
    "mlflow": "SELECT trace_id FROM spans",
}


def _hex(trace: str) -> str:
    """Without what MLflow puts before it."""
    return trace.removeprefix("tr-")
