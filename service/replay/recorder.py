"""A flight recorder: keeps what arrives, in the form that `recording` reads.

It never slows what it records: a thread of its own compresses and writes, and what comes faster than that is dropped
and counted.  Files have their names only when the recording has ended well.
"""

import json
import logging
import lzma
import queue
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TextIO

from catalog.clock import Clock
from collector.gpu.readings import Reading
from collector.targets import Target
from service.replay.recording import FORM, MAX_OTLP_BYTES

LOG = logging.getLogger(__name__)
FILES = ("otlp.tar.xz", "scrapes.jsonl.xz", "gpu.jsonl.xz")
PART = ".part"
PRESET: Final = 1  # tens of megabytes a second, for not much more space than the slow ones take
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
LOOK_AT_DISK_EVERY = 64


# Path, content type and body of a request to content type and body.
Clean = Callable[[str, str, bytes], tuple[str, bytes]]


def as_it_is(path: str, content_type: str, body: bytes) -> tuple[str, bytes]:
    """Nothing has to be taken out."""
    return content_type, body


class CannotRecord(Exception):
    """The directory cannot take a recording, and why."""


@dataclass
class RecordingState:
    """How far a recording is; times are Unix seconds, `ended` says why it did."""

    out: str
    started: float
    until: float
    max_bytes: int
    exports: int = 0
    scrapes: int = 0
    gpu_looks: int = 0
    bytes: int = 0
    dropped: int = 0
    ended: str = ""
    error: str = ""


@dataclass(frozen=True)
class _Item:
    file: str
    at: float
    entry: Mapping[str, Any]
    body: bytes = b""


@dataclass
class _Files:
    """The open files of a recording."""

    directory: Path
    stack: ExitStack
    archive: tarfile.TarFile
    lines: Mapping[str, TextIO]
    index: list[str] = field(default_factory=list)
    otlp_bytes: int = 0

    @classmethod
    def open(cls, directory: Path) -> "_Files":
        with ExitStack() as opening:
            archive = opening.enter_context(tarfile.open(directory / (FILES[0] + PART), "w:xz", preset=PRESET))
            lines = {
                name: opening.enter_context(lzma.open(directory / (name + PART), "wt", encoding="utf-8", preset=PRESET))
                for name in FILES[1:]
            }
            return cls(directory, opening.pop_all(), archive, lines)

    def write(self, item: _Item) -> None:
        if item.file in self.lines:
            self.lines[item.file].write(json.dumps({"unix_seconds": item.at, **item.entry}, ensure_ascii=False) + "\n")
            return
        name = f"{len(self.index):07}.pb"
        self._member(name, item.body)
        self.index.append(json.dumps({"unix_seconds": item.at, "file": name, **item.entry}))

    def _member(self, name: str, body: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        self.otlp_bytes += len(body)
        self.archive.addfile(member, BytesIO(body))

    def bytes(self) -> int:
        """On disk so far; the compressors hold back a little."""
        return sum((self.directory / (name + PART)).stat().st_size for name in FILES)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        self._member("index.jsonl", "\n".join(self.index).encode())
        self.stack.close()
        for name in FILES:
            (self.directory / (name + PART)).rename(self.directory / name)
        (self.directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


class Recorder:
    """One recording.  The `on_` methods are called from any thread and never raise or wait."""

    def __init__(self, out: Path, clock: Clock, seconds: float, max_bytes: int, clean: Clean = as_it_is) -> None:
        """Opens the files.  Raises CannotRecord.  `clean` redacts requests; it is called in the recorder's thread."""
        self._clock = clock
        self._clean = clean
        self._files = _open(out)
        now = clock.now()
        self.state = RecordingState(str(out), now, now + seconds, max_bytes)
        self._targets: dict[str, dict[str, Any]] = {}
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def on_export(self, path: str, content_type: str, body: bytes) -> None:
        """An OTLP request that was taken in; `body` is not compressed."""
        self._put(_Item(FILES[0], self._clock.now(), {"path": path, "content_type": content_type}, body))

    def on_scrape(self, target: Target, at: float, text: str | None, error: str) -> None:
        """A scrape; `text` is None for one that failed, of which `error` tells."""
        self._targets[target.name] = {"url": target.shown_url, "labels": dict(target.labels)}
        said = {"error": error} if text is None else {"text": text}
        self._put(_Item(FILES[1], at, {"target": target.name, **said}))

    def on_look(self, readings: Iterable[Reading], at: float) -> None:
        """One look at the GPUs, counters as the driver gave them."""
        for reading in readings:
            self._put(_Item(FILES[2], at, {"reading": asdict(reading)}))

    @property
    def open(self) -> bool:
        """Whether its files are still being written."""
        return self._thread.is_alive()

    def due(self) -> bool:
        """Whether the recording's time is over."""
        return self._clock.now() >= self.state.until

    def stop(self, why: str) -> RecordingState:
        """Ends the recording and closes its files; may be called twice."""
        with self._lock:
            self.state.ended = self.state.ended or why
        self._queue.put(None)
        self._thread.join()
        return self.state

    def _put(self, item: _Item) -> None:
        with self._lock:
            if self.state.ended:
                return
            if self._queue.qsize() >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                self.state.dropped += 1
                return
            self._waiting_bytes += len(item.body)
            self._queue.put(item)

    def _run(self) -> None:
        try:
            written = 0
            while (item := self._queue.get()) is not None:
                self._files.write(self._cleaned(item))
                self._count(item)
                written += 1
                if written % LOOK_AT_DISK_EVERY == 0:
                    self._measure()
            self._files.finish(self._manifest())
        except OSError as error:
            # A full disk ends the recording, and nothing else.
            LOG.warning("recording_failed", extra={"error": str(error)})
            with self._lock:
                self.state.ended, self.state.error = "error", f"{error.strerror or error}"
            with suppress(OSError, ValueError):
                self._files.stack.close()

    def _cleaned(self, item: _Item) -> _Item:
        if item.file != FILES[0]:
            return item
        content_type, body = self._clean(item.entry["path"], item.entry["content_type"], item.body)
        return replace(item, entry={**item.entry, "content_type": content_type}, body=body)

    def _count(self, item: _Item) -> None:
        counter = {FILES[0]: "exports", FILES[1]: "scrapes", FILES[2]: "gpu_looks"}[item.file]
        with self._lock:
            self._waiting_bytes -= len(item.body)
            setattr(self.state, counter, getattr(self.state, counter) + 1)

    def _measure(self) -> None:
        size = self._files.bytes()
        # What no replay would open again is not worth recording.
        full = size > self.state.max_bytes or self._files.otlp_bytes > MAX_OTLP_BYTES * 0.9
        with self._lock:
            self.state.bytes = size
            if full and not self.state.ended:
                self.state.ended = "size"

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "form": FORM,
            "started_unix_seconds": self.state.started,
            "targets": self._targets,
            "recorded": {name: getattr(self.state, name) for name in ("ended", "dropped")},
        }
        return manifest


def _open(out: Path) -> _Files:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise CannotRecord(f"{out} is not empty; give a directory that is, or none yet")
        return _Files.open(out)
    except OSError as error:
        raise CannotRecord(f"{out}: {error.strerror}") from None
