"""A recording is replayed in order, at any speed the same, and a broken one is refused by name."""

import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.replay.driver import TAIL_SECONDS, Replay, Round
from service.replay.recording import Export, FailedScrape, GpuLook, Recording, RecordingError, Scrape
from service.replay.stage import TimeShift

STARTED = 1_700_000_000.0


def write(
    directory: Path,
    *,
    manifest: dict[str, Any] | None = None,
    index: list[dict[str, Any]] | None = None,
    scrapes: list[dict[str, Any]] | None = None,
    gpu: list[dict[str, Any]] | None = None,
) -> Path:
    """A small recording; parts that are None are left out."""
    directory.mkdir(exist_ok=True)
    whole = {
        "form": 1,
        "started_unix_seconds": STARTED,
        "targets": {"engine": {"url": "http://127.0.0.1:1/metrics", "labels": {}}},
        "default_target": "engine",
    } | (manifest or {})
    (directory / "manifest.json").write_text(json.dumps(whole))
    if index is not None:
        with tarfile.open(directory / "otlp.tar.xz", "w:xz") as archive:
            files = {"index.jsonl": "\n".join(map(json.dumps, index)).encode(), "0000.pb": b""}
            for name, body in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
    for name, lines in (("scrapes", scrapes), ("gpu", gpu)):
        if lines is not None:
            with lzma.open(directory / f"{name}.jsonl.xz", "wt") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
    return directory


def small(directory: Path) -> Path:
    return write(
        directory,
        index=[{"file": "0000.pb", "unix_seconds": STARTED + at} for at in (0.5, 2.0, 3.7)],
        scrapes=[{"unix_seconds": STARTED + at, "text": "a 1\n"} for at in (0.0, 1.0, 2.0)],
        gpu=[{"unix_seconds": STARTED + 1.5}],
    )


class Diary:
    """Writes down what the replay does, in seconds from its start."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.entries: list[tuple[float, str]] = []

    def note(self, what: str, at: float) -> None:
        assert self._replay.clock.now() == at
        self.entries.append((round(at - self._replay.start, 3), what))

    async def export(self, export: Export, at: float, shift: float) -> None:
        assert at == export.at + shift
        self.note("export", at)

    def scrape(self, scrape: Scrape | FailedScrape, at: float) -> None:
        self.note("scrape", at)

    def gpu(self, look: GpuLook, at: float) -> None:
        self.note("gpu", at)

    def round(self, name: str, every: float) -> Round:
        async def act(at: float) -> None:
            self.note(name, at)

        return Round(every, act)


async def replayed(directory: Path, speed: float) -> list[tuple[float, str]]:
    replay = Replay(Recording(directory), speed)
    diary = Diary(replay)
    await replay.run(diary, [diary.round("score", 2.0), diary.round("drift", 60.0)])
    assert replay.progress.done
    return diary.entries


async def test_arrivals_and_rounds_come_in_order(tmp_path: Path) -> None:
    entries = await replayed(small(tmp_path / "r"), 100_000.0)
    assert entries[:9] == [
        (0.0, "scrape"),
        (0.5, "export"),
        (1.0, "scrape"),
        (1.5, "gpu"),
        (2.0, "export"),
        (2.0, "scrape"),
        (2.0, "score"),
        (3.7, "export"),
        (4.0, "score"),
    ]
    assert [at for at, what in entries if what == "drift"] == [60.0, 120.0]


async def test_speed_changes_nothing_but_the_waiting(tmp_path: Path) -> None:
    directory = small(tmp_path / "r")
    assert await replayed(directory, 200.0) == await replayed(directory, 100_000.0)


def test_the_replay_ends_at_the_real_time_at_which_it_is_reached(tmp_path: Path) -> None:
    replay = Replay(Recording(small(tmp_path / "r")), 10.0, wall=lambda: 5_000_000_000.0)
    length = 3.7 + TAIL_SECONDS
    assert replay.start + length == pytest.approx(5_000_000_000.0 + length / 10.0)


def test_a_card_recorded_at_another_time_is_laid_beside_the_rest(tmp_path: Path) -> None:
    gpu = {"started_unix_seconds": 1_600_000_000.0, "uuid": "GPU-1"}
    directory = write(tmp_path / "r", manifest={"gpu": gpu}, gpu=[{"unix_seconds": 1_600_000_002.0}])
    assert [event.at for event in Recording(directory).events()] == [STARTED + 2.0]


def test_scrape_that_failed_is_replayed_as_a_failed_scrape(tmp_path: Path) -> None:
    directory = write(tmp_path / "r", scrapes=[{"unix_seconds": STARTED, "error": "timed out"}])
    assert list(Recording(directory).events()) == [FailedScrape(STARTED, "engine", "timed out")]


BROKEN = {
    "no manifest": (
        None,
        r"manifest\.json: No such file or directory; a recording is a directory with a manifest\.json",
    ),
    "another form": ({"manifest": {"form": 2}}, r"manifest\.json: form 2; this version replays form 1"),
    "nothing": ({}, "holds no telemetry"),
    "missing body": (
        {"index": [{"file": "0009.pb", "unix_seconds": STARTED}]},
        r"index\.jsonl line 1: KeyError\('0009\.pb'\)",
    ),
    "no time": ({"index": [{"file": "0000.pb"}]}, r"index\.jsonl line 1: KeyError\('unix_seconds'\)"),
    "scrape of nothing": (
        {"scrapes": [{"unix_seconds": STARTED}]},
        r"scrapes\.jsonl\.xz line 1: has neither text nor error",
    ),
    "unknown target": (
        {"scrapes": [{"unix_seconds": STARTED, "target": "x", "text": ""}]},
        r"scrapes\.jsonl\.xz line 1: target 'x' is not in manifest\.json",
    ),
}


@pytest.mark.parametrize(("parts", "message"), BROKEN.values(), ids=list(BROKEN))
def test_broken_recording_is_refused_with_the_place(tmp_path: Path, parts: dict[str, Any] | None, message: str) -> None:
    directory = tmp_path / "r" if parts is None else write(tmp_path / "r", **parts)
    with pytest.raises(RecordingError, match=message):
        Recording(directory)


@pytest.mark.parametrize("name", ["otlp.tar.xz", "scrapes.jsonl.xz"])
def test_truncated_file_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    directory = small(tmp_path / "r")
    path = directory / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordingError, match=name.replace(".", r"\.")):
        Recording(directory)


def test_every_time_of_an_export_is_moved_alike() -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(start_time_unix_nano=10, end_time_unix_nano=30)
    span.events.add(time_unix_nano=20)
    shift = TimeShift()
    shift.nanoseconds = 1_000
    shift(request)
    assert (span.start_time_unix_nano, span.events[0].time_unix_nano, span.end_time_unix_nano) == (1_010, 1_020, 1_030)
