"""A recording: what arrived at a Tidegauge, when.

A directory with `manifest.json`, `otlp.tar.xz` (requests and `index.jsonl`), `scrapes.jsonl.xz` and, optionally,
`gpu.jsonl.xz`.  Nothing else in the directory is read.
"""

import heapq
import json
import lzma
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORM = 1
MAX_OTLP_BYTES = 1 << 30


class RecordingError(Exception):
    """The directory holds no recording that can be replayed, and why."""


@dataclass(frozen=True)
class Export:
    """An OTLP export request as it arrived."""

    at: float
    path: str
    content_type: str
    content_encoding: str | None
    body: bytes


@dataclass(frozen=True)
class Scrape:
    """A target's `/metrics` as it answered."""

    at: float
    target: str
    text: str


@dataclass(frozen=True)
class FailedScrape:
    """A target that did not answer, and what the recorder said of it."""

    at: float
    target: str
    error: str


@dataclass(frozen=True)
class GpuLook:
    """One reading of a GPU."""

    at: float
    reading: Mapping[str, Any]


Event = Export | Scrape | FailedScrape | GpuLook


@dataclass(frozen=True)
class RecordedTarget:
    """A scraped target: its URL and configured labels."""

    url: str
    labels: Mapping[str, str]


class Recording:
    """A recording that was opened; raises RecordingError for what cannot be replayed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        manifest = self._manifest()
        self.started = float(manifest["started_unix_seconds"])
        self.targets = {
            name: RecordedTarget(target["url"], target.get("labels", {}))
            for name, target in manifest.get("targets", {}).items()
        }
        self._default_target = manifest.get("default_target")
        self.gpu: Mapping[str, Any] = manifest.get("gpu", {})
        self._exports = sorted(self._read_exports(), key=lambda export: export.at)
        times = [event.at for event in self.events()]
        if not times:
            raise RecordingError(f"{directory}: holds no telemetry")
        self.start, self.end = times[0], times[-1]

    def events(self) -> Iterator[Event]:
        """Everything that arrived, in order of arrival."""
        return heapq.merge(self._exports, self._scrapes(), self._gpu_looks(), key=lambda event: event.at)

    def _manifest(self) -> dict[str, Any]:
        path = self._directory / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
            form = manifest["form"]
            float(manifest["started_unix_seconds"])
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}; a recording is a directory with a manifest.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise RecordingError(f"{path}: not a recording's manifest ({error!r})") from None
        if form != FORM:
            raise RecordingError(f"{path}: form {form!r}; this version replays form {FORM}")
        return dict(manifest)

    def _read_exports(self) -> Iterator[Export]:
        path = self._directory / "otlp.tar.xz"
        if not path.exists():
            return
        bodies: dict[str, bytes] = {}
        size = 0
        try:
            with tarfile.open(path, "r:xz") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is None:
                        continue
                    size += member.size
                    if size > MAX_OTLP_BYTES:
                        raise RecordingError(f"{path}: more than {MAX_OTLP_BYTES >> 20} MiB of requests")
                    bodies[member.name.removeprefix("./")] = file.read()
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise RecordingError(f"{path}: cannot be unpacked: {error}") from None
        if "index.jsonl" not in bodies:
            raise RecordingError(f"{path}: has no index.jsonl")
        for number, line in enumerate(bodies["index.jsonl"].decode().splitlines(), 1):
            try:
                entry = json.loads(line)
                yield Export(
                    at=float(entry["unix_seconds"]),
                    path=entry.get("path", "/v1/traces"),
                    content_type=entry.get("content_type", "application/x-protobuf"),
                    content_encoding=entry.get("content_encoding"),
                    body=bodies[entry["file"]],
                )
            except (ValueError, KeyError, TypeError) as error:
                raise RecordingError(f"{path}: index.jsonl line {number}: {error!r}") from None

    def _scrapes(self) -> Iterator[Scrape | FailedScrape]:
        for number, entry in self._lines("scrapes.jsonl.xz"):
            target = entry.get("target", self._default_target)
            if target not in self.targets:
                raise RecordingError(f"scrapes.jsonl.xz line {number}: target {target!r} is not in manifest.json")
            at = float(entry["unix_seconds"])
            if isinstance(entry.get("text"), str):
                yield Scrape(at, str(target), entry["text"])
            elif "error" in entry:
                yield FailedScrape(at, str(target), str(entry["error"])[:300])
            else:
                raise RecordingError(f"scrapes.jsonl.xz line {number}: has neither text nor error")

    def _gpu_looks(self) -> Iterator[GpuLook]:
        # A card that was recorded on its own has a start of its own: it is laid beside the rest.
        shift = self.started - float(self.gpu.get("started_unix_seconds", self.started))
        for _, entry in self._lines("gpu.jsonl.xz"):
            yield GpuLook(float(entry["unix_seconds"]) + shift, entry)

    def _lines(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        path = self._directory / name
        if not path.exists():
            return
        number = 0
        try:
            with lzma.open(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    entry = json.loads(line)
                    float(entry["unix_seconds"])
                    yield number, entry
        except (lzma.LZMAError, EOFError, ValueError, KeyError, TypeError) as error:
            raise RecordingError(f"{path}: line {number + 1}: {error!r}") from None
