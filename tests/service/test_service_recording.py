"""What `tidegauge record` keeps replays to the very rows that it was kept from."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.gpu.readings import GpuProcess, Look, Reading
from collector.gpu.recorded import recorded_reading
from collector.otlp.sender import Sender
from collector.targets import Target, checked
from service.config import Config
from service.demo import shipped_recording
from service.replay.clock import ReplayClock
from service.replay.recorder import CannotRecord, Recorder
from service.replay.recording import Export, FailedScrape, GpuLook, Recording, Scrape
from service.runtime import Service
from tests.e2e.service_kit import free_ports

SECONDS = 20.0
MEGABYTES_500 = 500_000_000
TABLES = {"spans": "trace_id, span_id", "engine_state": "time, target", "gpu_state": "time, gpu"}


class World:
    """A service whose time a test moves, and a recording's first seconds to feed it with."""

    def __init__(self, directory: Path) -> None:
        http, grpc, otlp = free_ports(3)
        addresses = {"listen": f"127.0.0.1:{http}", "otlp_grpc": f"127.0.0.1:{grpc}", "otlp_http": f"127.0.0.1:{otlp}"}
        self.clock = ReplayClock(0.0)
        self.service = Service(Config.model_validate({"data": directory, **addresses}), clock=self.clock)

    async def feed(self, recording: Recording) -> None:
        targets = {name: checked(target.url, target.labels) for name, target in recording.targets.items()}
        for event in recording.events():
            if event.at > recording.start + SECONDS:
                return
            self.clock.advance(event.at)
            await self.take(event, targets)

    async def take(self, event: object, targets: dict[str, Target]) -> None:
        ingest = self.service.scraper.ingest
        match event:
            case Export():
                body, kind = event.body, event.content_type
                await self.service.receiver.receive(body, kind, event.content_encoding, Sender("replay"))
            case Scrape():
                result = ingest.ingest(targets[event.target], event.text, event.at)
                if result.rows is not None:
                    self.service.engine_rows(result.rows)
            case FailedScrape():
                assert ingest.on_scrape is not None
                ingest.on_scrape(targets[event.target], event.at, None, event.error)
            case GpuLook():
                self.service.gpu._took(Look((recorded_reading(event.reading),)), event.at)

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        await self.service.stop()
        connection = duckdb.connect(str(self.service.database.path))
        found = {
            table: connection.sql(f"SELECT * FROM {table} ORDER BY {order}").to_arrow_table().to_pylist()
            for table, order in TABLES.items()
        }
        connection.close()
        return {
            table: [{k: v for k, v in row.items() if k not in ("commit_seq", "committed_at")} for row in rows]
            for table, rows in found.items()
        }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "data")
    yield made
    await made.service.stop()


def messages(recording: Recording) -> list[tuple[float, str, ExportTraceServiceRequest]]:
    return [
        (event.at, event.path, ExportTraceServiceRequest.FromString(event.body))
        for event in recording.events()
        if isinstance(event, Export) and event.at <= recording.start + SECONDS
    ]


def others(recording: Recording) -> list[object]:
    return [
        (type(event).__name__, event.at, getattr(event, "text", getattr(event, "error", None)))
        for event in recording.events()
        if not isinstance(event, Export) and event.at <= recording.start + SECONDS
    ]


async def test_a_recording_of_a_replay_is_that_recording_and_replays_to_the_same_rows(
    world: World, tmp_path: Path
) -> None:
    original = Recording(shipped_recording())
    world.clock.advance(original.start)
    world.service.recordings.start(tmp_path / "out", 3600.0, MEGABYTES_500)
    await world.feed(original)
    state = world.service.recordings.stop()
    assert state is not None
    assert (state["ended"], state["dropped"]) == ("stopped", 0)
    recorded = Recording(tmp_path / "out")
    assert messages(recorded) == messages(original)
    assert len(messages(recorded)) > 20
    assert others(recorded) == others(original)
    assert {event[0] for event in others(recorded)} >= {"Scrape", "GpuLook"}

    first = await world.rows()
    # User ids are stored hashed, under a key of the data directory.
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "data" / "user-id.key", tmp_path / "again" / "user-id.key")
    second = World(tmp_path / "again")
    await second.feed(recorded)
    assert await second.rows() == first
    assert all(first.values())


async def test_a_gpu_reading_comes_back_whole(tmp_path: Path) -> None:
    reading = Reading(
        "GPU-1",
        "node",
        "H200",
        mig=False,
        power_watts=312.5,
        clock_events={"hw_slowdown": 1},
        running=(GpuProcess(7, 123, "pod", "uid"), GpuProcess(8)),
        xids={"79": 2},
        availability={"nvlink_receive_bytes": "not_supported"},
    )
    recorder = Recorder(tmp_path / "out", ReplayClock(100.0), 60.0, MEGABYTES_500)
    recorder.on_look([reading], 101.0)
    recorder.stop("stopped")
    (look,) = Recording(tmp_path / "out").events()
    assert isinstance(look, GpuLook)
    assert look.at == 101.0
    assert recorded_reading(look.reading) == reading


async def test_a_recording_ends_at_its_size_and_stays_readable(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out", ReplayClock(100.0), 60.0, max_bytes=50_000)
    target = checked("http://127.0.0.1:1/metrics")
    sent = 0
    while not recorder.state.ended and sent < 100_000:
        text = "".join(f"m{i}_{(i * 7919 + sent) ** 5} {i}\n" for i in range(60))
        recorder.on_scrape(target, 100.0 + sent, text, "")
        sent += 1
        await asyncio.sleep(0.001)
    assert recorder.state.ended == "size"
    recorder.stop("stopped")
    assert recorder.state.ended == "size"
    assert recorder.state.scrapes == len(list(Recording(tmp_path / "out").events())) <= sent


async def test_a_directory_that_is_not_empty_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(CannotRecord, match="not empty"):
        world.service.recordings.start(tmp_path / "out", 10.0, MEGABYTES_500)
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


async def test_one_recording_at_a_time(world: World, tmp_path: Path) -> None:
    world.service.recordings.start(tmp_path / "one", 10.0, MEGABYTES_500)
    with pytest.raises(CannotRecord, match="going on"):
        world.service.recordings.start(tmp_path / "two", 10.0, MEGABYTES_500)


async def test_only_a_command_on_this_machine_may_record(world: World, tmp_path: Path) -> None:
    await world.service.listen()
    wanted = {"out": str(tmp_path / "out"), "seconds": 5}
    async with httpx.AsyncClient(base_url=world.service.config.url()) as anybody:
        refused = await anybody.post("/api/v1/admin/recording", json=wanted)
    assert refused.status_code == 403
    token = {"Authorization": f"Bearer {world.service._local_token}"}
    async with httpx.AsyncClient(base_url=world.service.config.url(), headers=token) as local:
        assert (await local.get("/api/v1/admin/recording")).status_code == 404
        relative = await local.post("/api/v1/admin/recording", json={"out": "here"})
        assert relative.status_code == 422
        assert (await local.post("/api/v1/admin/recording", json=wanted)).status_code == 201
        ended = (await local.delete("/api/v1/admin/recording")).json()
    assert ended["ended"] == "stopped"
    assert not (tmp_path / "here").exists()
