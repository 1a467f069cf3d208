"""Endpoints of remote write for tests: a fake that can be told how to answer, and the real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa

from alerts.local_prometheus import free_port
from alerts.promtool import binary
from collector.remote_write.wire import message
from tests.binaries import _process

Samples = dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]


def unsnapped(body: bytes) -> bytes:
    """A block of snappy begins with its length."""
    length = shift = at = 0
    while True:
        byte = body[at]
        length |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return bytes(pa.decompress(body, decompressed_size=length, codec="snappy", asbytes=True))


class Endpoint:
    """Remembers what was written; `answers` are given first, then 204."""

    def __init__(self, speaks: str) -> None:
        self.speaks = speaks
        self.answers: list[int] = []
        self.requests: list[dict[str, str]] = []
        self.samples: Samples = {}
        self.kinds: dict[str, int] = {}
        self.url = ""

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        self.requests.append(headers)
        if self.answers:
            return self.answers.pop(0), {"Retry-After": "0"}
        second = "v2" in headers["content-type"]
        if second and self.speaks == "1.0 strict":
            return 415, {}
        if second and self.speaks == "2.0":
            self._second(message("v2.Request").FromString(unsnapped(body)))
            return 204, {"X-Prometheus-Remote-Write-Samples-Written": "1"}
        for series in message("v1.WriteRequest").FromString(unsnapped(body)).timeseries:
            labels = tuple((label.name, label.value) for label in series.labels)
            self._add(labels, series.samples)
        return 204, {}

    def _second(self, request: Any) -> None:
        for series in request.timeseries:
            texts = [request.symbols[ref] for ref in series.labels_refs]
            labels = tuple(zip(texts[::2], texts[1::2], strict=True))
            self.kinds[dict(labels)["__name__"]] = series.metadata.type
            self._add(labels, series.samples)

    def _add(self, labels: tuple[tuple[str, str], ...], samples: Any) -> None:
        self.samples.setdefault(labels, []).extend((sample.timestamp / 1000, sample.value) for sample in samples)


@contextmanager
def endpoint(speaks: str = "1.0") -> Iterator[Endpoint]:
    """A fake that speaks `1.0` (and takes 2.0 for an empty request), `1.0 strict` (415) or `2.0`."""
    made = Endpoint(speaks)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = made.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            for name, value in {**said, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/api/v1/write"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def prometheus_receiver(folder: Path, port: int | None = None) -> Iterator[tuple[str, str]]:
    """Write URL and query URL of Debian's Prometheus with its receiver switched on."""
    address = f"127.0.0.1:{port or free_port()}"
    (folder / "receiver.yml").write_text("global: {}\n")
    command = [
        binary("prometheus"),
        f"--config.file={folder / 'receiver.yml'}",
        f"--storage.tsdb.path={folder / 'receiver-data'}",
        f"--web.listen-address={address}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]
    with _process(command, folder / "receiver.log", f"http://{address}/-/ready", folder):
        yield f"http://{address}/api/v1/write", f"http://{address}"


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[tuple[str, str]]:
    """Write URL and query URL of Debian's VictoriaMetrics."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary("victoria-metrics"),
        f"-storageDataPath={folder / 'victoria-data'}",
        f"-httpListenAddr={address}",
        "-search.latencyOffset=0s",
        "-search.disableCache",
    ]
    with _process(command, folder / "victoria.log", f"http://{address}/health", folder):
        yield f"http://{address}/api/v1/write", f"http://{address}"
