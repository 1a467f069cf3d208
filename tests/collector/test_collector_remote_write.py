"""Samples reach every kind of receiver once, in order, through outages and restarts."""

import asyncio
import math
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.remote_write.queue import DiskQueue
from collector.remote_write.sampler import Sampler
from collector.remote_write.settings import RemoteWriteSettings
from collector.remote_write.wire import STALE, Encoder, message
from collector.remote_write.writer import RemoteWriter
from tests.binaries import query, wait_for
from tests.collector.remote_write_receivers import Endpoint, endpoint, prometheus_receiver, victoria_metrics

PAGE = '# TYPE up gauge\nup{target="a"} %s\n# TYPE requests counter\nrequests_total{target="a"} %s\n# EOF\n'
MARK = struct.pack("<d", STALE)


class HandClock:
    """Shows what the test says; sleeping is real, and short."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        if seconds > 1e6:
            # The writer's own clock: the test says when to sample.
            await asyncio.Event().wait()
        await asyncio.sleep(min(max(seconds, 0.0), 0.02))


class World:
    """A writer over a page that the test changes, and a clock that it moves."""

    def __init__(self, directory: Path, url: str, **settings: Any) -> None:
        self.clock = HandClock(1_800_000_000.0)
        self.page = PAGE % (1, 10)
        self.metrics = Instruments(prometheus_client.CollectorRegistry())
        made = RemoteWriteSettings.model_validate({"url": url, "name": "far", "interval": 1e9, **settings})
        rng = random.Random(1)
        self.writer = RemoteWriter(made, lambda: self.page, directory, self.clock, self.metrics, rng)

    def write(self, page: str, seconds: float = 15.0) -> None:
        self.clock.time += seconds
        self.page = page
        self.writer.sample()

    def count(self, status: str) -> float:
        return float(self.metrics.counters.tidegauge_remote_write_samples_total.labels("far", status)._value.get())

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.writer.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        world.writer.close()


def values(far: Endpoint, name: str) -> list[float]:
    (found,) = [samples for labels, samples in far.samples.items() if dict(labels)["__name__"] == name]
    return [value for _, value in found]


@given(
    st.lists(st.tuples(st.text(max_size=20), st.floats(allow_nan=False)), min_size=1, max_size=20),
    st.integers(0, 2**53),
)
def test_entries_are_those_of_protobuf(series: list[tuple[str, float]], milliseconds: int) -> None:
    labels = [[("__name__", f"m{index}"), ("text", text)] for index, (text, _) in enumerate(series)]
    made = b"".join(Encoder(labels).entries([value for _, value in series], milliseconds))
    read = message("v1.WriteRequest").FromString(made)
    assert [[(label.name, label.value) for label in item.labels] for item in read.timeseries] == labels
    assert [(item.samples[0].value, item.samples[0].timestamp) for item in read.timeseries] == [
        (value, milliseconds) for _, value in series
    ]


@pytest.mark.parametrize(("speaks", "protocol"), [("1.0", "1.0"), ("1.0 strict", "1.0"), ("2.0", "2.0")])
async def test_the_receiver_s_protocol_is_found_and_nothing_is_lost_on_the_way(
    tmp_path: Path, speaks: str, protocol: str
) -> None:
    with endpoint(speaks) as far:
        async with running(World(tmp_path, far.url)) as world:
            for number in range(3):
                world.write(PAGE % (1, number))
            await world.until(lambda: world.count("sent") == 6)
        assert world.writer.protocol == protocol
        assert values(far, "requests_total") == [0, 1, 2]
        (labels,) = [dict(labels) for labels in far.samples if dict(labels)["__name__"] == "up"]
        assert labels == {"__name__": "up", "target": "a", "job": "tidegauge"}
        assert [at for at, _ in far.samples[tuple(sorted(labels.items()))]] == [
            1_800_000_015 + 15 * n for n in range(3)
        ]


async def test_metadata_goes_with_2_0(tmp_path: Path) -> None:
    with endpoint("2.0") as far:
        async with running(World(tmp_path, far.url)) as world:
            world.write('# TYPE tidegauge_target_up gauge\ntidegauge_target_up{target="a",engine="vllm"} 1\n# EOF\n')
            await world.until(lambda: world.count("sent") == 1)
        assert far.kinds == {"tidegauge_target_up": 2}


async def test_an_outage_is_filled_in_order_also_over_a_restart(tmp_path: Path) -> None:
    with endpoint() as far:
        far.answers = [503] * 10**6
        first = World(tmp_path, far.url, protocol="1.0")
        async with running(first):
            for number in range(3):
                first.write(PAGE % (1, number))
            await first.until(lambda: len(far.requests) >= 2)
            assert first.count("sent") == 0
            assert first.metrics.gauges.tidegauge_remote_write_queue_bytes.labels("far")._value.get() > 0
        far.answers = []
        second = World(tmp_path, far.url, protocol="1.0")
        second.clock.time = first.clock.time
        async with running(second):
            second.write(PAGE % (1, 3))
            await second.until(lambda: second.count("sent") == 8)
        assert values(far, "requests_total") == [0, 1, 2, 3]


async def test_what_is_refused_for_good_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    with endpoint() as far:
        far.answers = [400]
        async with running(World(tmp_path, far.url, protocol="1.0")) as world:
            world.write(PAGE % (1, 1))
            world.write(PAGE % (1, 2))
            await world.until(lambda: world.count("sent") == 2)
        assert world.count("rejected") == 2
        assert values(far, "requests_total") == [2]


async def test_a_series_that_ends_is_marked_once(tmp_path: Path) -> None:
    with endpoint() as far:
        async with running(World(tmp_path, far.url)) as world:
            world.write(PAGE % (1, 1))
            for _ in range(2):
                world.write('# TYPE up gauge\nup{target="a"} 1\n# EOF\n')
            await world.until(lambda: world.count("sent") == 5)
        before, mark = values(far, "requests_total")
        assert before == 1
        assert struct.pack("<d", mark) == MARK
        assert values(far, "up") == [1, 1, 1]


def test_the_queue_is_bounded_and_loses_its_oldest(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path / "q.sqlite", max_bytes=1000)
    dropped = [queue.put(float(number), 7, bytes(300)) for number in range(5)]
    assert dropped == [0, 0, 0, 7, 7]
    assert (queue.backlog().requests, queue.backlog().bytes, queue.backlog().oldest) == (3, 900, 2.0)
    queue.close()
    again = DiskQueue(tmp_path / "q.sqlite", max_bytes=1000)
    head = again.head()
    assert head is not None
    assert (head.at, head.samples) == (2.0, 7)
    again.close()


def test_a_queue_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "q.sqlite").write_bytes(b"no database at all, and long enough to be looked at" * 100)
    queue = DiskQueue(tmp_path / "q.sqlite", max_bytes=1000)
    assert queue.head() is None
    assert (tmp_path / "q.corrupt").exists()
    queue.close()


async def test_credentials_and_headers_are_sent(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("from-a-file\n")
    settings = {"headers": {"X-Scope-OrgID": "acme"}, "bearer_token_file": token}
    with endpoint() as far:
        async with running(World(tmp_path / "q", far.url, **settings)) as world:
            world.write(PAGE % (1, 1))
            await world.until(lambda: world.count("sent") == 2)
        assert far.requests[-1]["authorization"] == "Bearer from-a-file"
        assert far.requests[-1]["x-scope-orgid"] == "acme"
        assert far.requests[-1]["content-encoding"] == "snappy"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "far:9090"}, "not an http"),
        ({"url": "http://user:secret@far/write"}, "username and password"),
        ({"url": "http://far/w", "username": "u", "bearer_token": "t"}, "one of"),
        ({"url": "http://far/w", "protocol": "3.0"}, "2.0"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RemoteWriteSettings.model_validate(settings)


def test_many_series_make_bounded_requests() -> None:
    page = "".join(f'm{{i="{number}"}} {number}\n' for number in range(2500)) + "# EOF\n"
    made = Sampler({}, 1000).requests(page, 1.0)
    assert [request.samples for request in made] == [1000, 1000, 500]


# --- the real ones ---------------------------------------------------------------------------------------------------


async def _filled(url: str, ask: str, directory: Path, start: float) -> dict[float, float]:
    """Writes ten minutes, then asks for them."""
    async with running(World(directory, url)) as world:
        world.clock.time = start
        for number in range(40):
            world.write(PAGE % (1, number))
        await world.until(lambda: world.count("sent") == 80)
        assert world.writer.protocol == "1.0"
        assert world.count("rejected") == 0
        # A counter that ends: the receivers must show it as gone, and not for five minutes more.
        world.write('# TYPE up gauge\nup{target="a"} 1\n# EOF\n')
        await world.until(lambda: world.count("sent") == 82)
    found = await asyncio.to_thread(wait_for, "the samples", lambda: query(ask, "requests_total[1h]"), 30)
    return {float(at): float(value) for at, value in found[0]["values"]}


async def test_a_real_prometheus_has_every_sample_after_an_outage(tmp_path: Path) -> None:
    with prometheus_receiver(tmp_path) as (write, ask):
        start = SystemClock().now() - 900
        got = await _filled(write, ask, tmp_path / "q", start)
        assert list(got.values()) == [float(number) for number in range(40)]
        assert all(math.isclose(at, start + 15 * (n + 1), abs_tol=0.002) for n, at in enumerate(got))
        gone = query(ask, f"requests_total @ {start + 15 * 41 + 1:.3f}")
        assert gone == []
        (there,) = query(ask, f"up @ {start + 15 * 41 + 1:.3f}")
        assert there["metric"] == {"__name__": "up", "target": "a", "job": "tidegauge"}


async def test_a_real_victoria_metrics_has_every_sample(tmp_path: Path) -> None:
    with victoria_metrics(tmp_path) as (write, ask):
        got = await _filled(write, ask, tmp_path / "q", SystemClock().now() - 900)
        *samples, mark = got.values()
        assert samples == [float(number) for number in range(40)]
        # It shows the mark of an ended series among the raw samples.
        assert math.isnan(mark)
