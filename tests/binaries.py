"""Real Prometheus and Alertmanager for tests: free ports, temporary folders, ended with the block."""

import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from alerts.local_prometheus import free_port, stop
from alerts.promtool import binary


def get_json(url: str) -> Any:
    """The JSON document at a URL."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def wait_for(what: str, found: Callable[[], Any], seconds: float) -> Any:
    """What `found` returns once that is true; AssertionError with the last result if it takes too long."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = found()
        except OSError as error:
            last = error
        if last and not isinstance(last, OSError):
            return last
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s; last seen {last!r}")


@contextmanager
def _process(command: list[str], log: Path, ready_url: str, cwd: Path) -> Iterator[None]:
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd) as process:
        try:
            wait_for(f"{command[0]} ready", lambda: _answers(ready_url, process, log), 30)
            yield
        finally:
            stop(process)


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, f"it ended: {log.read_text()[-2000:]}"
    with urllib.request.urlopen(url, timeout=1) as answer:
        return bool(answer.status == 200)


@contextmanager
def prometheus(config: Path, folder: Path, port: int | None = None) -> Iterator[str]:
    """URL of a Prometheus with this configuration; paths in it are relative to the configuration's folder."""
    address = f"127.0.0.1:{port or free_port()}"
    command = [
        binary("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus-data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with _process(command, folder / "prometheus.log", f"http://{address}/-/ready", folder):
        yield f"http://{address}"


@contextmanager
def alertmanager(config: Path, folder: Path, port: int | None = None) -> Iterator[str]:
    """URL of an Alertmanager with this configuration."""
    address = f"127.0.0.1:{port or free_port()}"
    command = [
        binary("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager-data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with _process(command, folder / "alertmanager.log", f"http://{address}/-/ready", folder):
        yield f"http://{address}"


@dataclass
class LocalServer:
    """An HTTP server on loopback: serves `pages` by path, keeps the JSON documents that are posted."""

    url: str
    port: int
    pages: dict[str, Callable[[], str]] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def local_server() -> Iterator[LocalServer]:
    """A LocalServer in threads of its own."""
    state = LocalServer("", 0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = state.pages.get(self.path)
            self._answer(404 if page is None else 200, "" if page is None else page())

        def do_POST(self) -> None:
            state.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(200, "{}")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    state.url = f"http://127.0.0.1:{state.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def alert_states(prometheus_url: str, name: str) -> dict[str, dict[str, Any]]:
    """Prometheus' active alerts of a name, by state."""
    alerts = get_json(f"{prometheus_url}/api/v1/alerts")["data"]["alerts"]
    return {alert["state"]: alert for alert in alerts if alert["labels"]["alertname"] == name}


def query(prometheus_url: str, expr: str) -> list[dict[str, Any]]:
    """The result of an instant query."""
    found: list[dict[str, Any]] = get_json(f"{prometheus_url}/api/v1/query?" + urllib.parse.urlencode({"query": expr}))[
        "data"
    ]["result"]
    return found
