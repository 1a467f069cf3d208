"""The scraper against real local servers that misbehave: each costs only itself."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.engine_state import EngineStates
from collector.ingest import ScrapeResult, TargetStatus
from collector.scrape import Scraper, phase
from collector.served import Served
from collector.settings import ScrapeSettings

DATA = Path(__file__).parents[1] / "data" / "engines"
GOOD = gzip.decompress((DATA / "vllm-0.32.0" / "040.prom.gz").read_bytes())
RUNNING = 'llm_engine_requests_running{target="good",engine="vllm",model="tiny-llama",rank="0"} 27.0'
TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
MIB = 1024 * 1024
BOMB = gzip.compress(b"a 1\n" * (4 * MIB))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hosts:
    """Local servers, all on one port, one path each; what they have sent is counted."""

    def __init__(self) -> None:
        self.sent = 0
        self.seen: list[dict[str, str]] = []
        self.rounds = 0
        self.url = ""

    async def good(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(dict(request.headers))
        return web.Response(body=GOOD, headers=TEXT)

    async def good_gzip(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(GOOD), headers={**TEXT, "Content-Encoding": "gzip"})

    async def hanging(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def slow_drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=TEXT)
        await response.prepare(request)
        for _ in range(600):
            await response.write(b"a 1\n")
            await asyncio.sleep(0.1)
        return response

    async def gigabyte(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=TEXT)
        await response.prepare(request)
        line = b'a{b="' + b"x" * 65_500 + b'"} 1\n'
        for _ in range(2**30 // len(line)):
            await response.write(line)
            self.sent += len(line)
        return response

    async def bomb(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=BOMB, headers={**TEXT, "Content-Encoding": "gzip"})

    async def html(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="<!doctype html>\n<title>chat</title>", content_type="text/html")

    async def html_as_text(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="\n<html>", content_type="text/plain")

    async def json(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([{"iterations": 1}])

    async def error(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="out of memory")

    async def missing(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async def redirect(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://elsewhere:8000/metrics")

    async def recorded(self, request: web.Request) -> web.StreamResponse:
        name = {"metrics_off": "10-metrics-flag-off.txt", "router": "12-router-mode-no-model.txt"}[request.path[1:]]
        head, _, body = (DATA / "llamacpp-b11434" / name).read_text().replace("\r\n", "\n").partition("\n\n")
        return web.Response(status=int(head.split()[1]), text=body, content_type="application/json")

    async def malformed(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=GOOD + b'vllm:oops{a="b" 1\n', headers=TEXT)

    async def latin(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'a{b="\xe9"} 1\n', headers=TEXT)

    async def exploding(self, request: web.Request) -> web.StreamResponse:
        self.rounds += 1
        body = "".join(f'a{{id="{self.rounds}-{number}"}} 1\n' for number in range(3_000))
        return web.Response(text=body, headers=TEXT)

    async def big(self, request: web.Request) -> web.StreamResponse:
        self.rounds += 1
        return web.Response(text="".join(f'a{{id="{number}"}} 1\n' for number in range(30_000)), headers=TEXT)

    async def huge_label(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text='a{b="' + "x" * 20_000 + '"} 1\n', headers=TEXT)

    async def cut_off(self, request: web.Request) -> web.StreamResponse:
        kind = {"Content-Type": "application/openmetrics-text; version=1.0.0"}
        return web.Response(body=b"# TYPE a gauge\na 1\n", headers=kind)

    async def cut_gzip(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(GOOD)[:500], headers={**TEXT, "Content-Encoding": "gzip"})

    async def brotli(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x0b", headers={**TEXT, "Content-Encoding": "br"})

    async def locked(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer key":
            return web.Response(status=401)
        return await self.good(request)

    async def hang_up(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    hosts = Hosts()
    app = web.Application()
    for name in dir(Hosts):
        if not name.startswith("_"):
            app.router.add_get(f"/{name}", getattr(hosts, name))
    for path in ("/metrics_off", "/router"):
        app.router.add_get(path, hosts.recorded)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hosts.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield hosts
    await runner.cleanup()


class Setup:
    """A scraper of some of the hosts, and what came out of it."""

    def __init__(self, hosts: Hosts, *names: str, **settings: Any) -> None:
        targets = [{"url": f"{hosts.url}/{name}", "labels": {"instance": name}} for name in names]
        given = {"interval": 0.5, "timeout": 0.4, "max_series": 2_000, "targets": targets, **settings}
        self.settings = ScrapeSettings.model_validate(given)
        self.registry = CollectorRegistry()
        self.served = Served(SystemClock(), self.settings.staleness(), self.registry)
        self.tables: list[pa.Table] = []
        self.results: list[ScrapeResult] = []
        self.scraper = Scraper(
            self.settings,
            self.served,
            EngineStates(),
            self.tables.append,
            SystemClock(),
            Instruments(self.registry),
            self.results.append,
        )

    def status(self, name: str) -> TargetStatus:
        return next(status for status in self.scraper.statuses() if status.name == name)

    def text(self) -> str:
        return self.served.render()[0].decode()

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    async def runs(self, until: Callable[[], bool], limit: float = 5.0) -> None:
        """Runs the scraper until something is so, then stops it."""
        task = asyncio.create_task(self.scraper.run())
        try:
            async with asyncio.timeout(limit):
                while not until():  # noqa: ASYNC110 (what is waited for is outside)
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# The host, the metric's reason, and the error; {port} stands for the hosts' port.
FAILURES = {
    "hanging": ("timeout", "targets: hanging did not answer within 0.4 s"),
    "slow_drip": ("timeout", "targets: slow_drip began to answer, but had sent only "),
    "bomb": (
        "too_large",
        "targets: bomb answered with more than 1048576 bytes; raise scrape.max_body if that is right",
    ),
    "html": (
        "not_exposition",
        "targets: html answered, but with text/html (first bytes '<!doctype html>'); is the path /metrics?",
    ),
    "html_as_text": (
        "not_exposition",
        "targets: html_as_text answered, but with text/plain (first bytes '<html>'); is the path /metrics?",
    ),
    "json": (
        "not_exposition",
        "targets: json answered, but with application/json (first bytes '[{\"iterations\": 1}]')",
    ),
    "error": ("http_status", "targets: error answered 500 Internal Server Error (first bytes 'out of memory')"),
    "missing": (
        "http_status",
        "targets: missing answered 404 Not Found; is http://127.0.0.1:{port}/missing the right path?",
    ),
    "redirect": (
        "http_status",
        "targets: redirect answered 302 Found to 'http://elsewhere:8000/metrics'; write that address as its url",
    ),
    "metrics_off": (
        "http_status",
        "targets: metrics_off answered 501: llama-server has its metrics off; start it with --metrics",
    ),
    "router": ("http_status", "targets: router answered 400: llama-server is a router; list one target per model, "),
    "malformed": (
        "malformed",
        "targets: malformed: malformed exposition: "
        'line 627: \'vllm:oops{a="b" 1\': expected name="value" or } at column 11',
    ),
    "latin": ("malformed", "targets: latin answered with bytes that are not UTF-8, the first at 5"),
    "exploding": (
        "too_many_series",
        "targets: exploding: more than 2000 series; raise scrape.max_series, or serve fewer",
    ),
    "huge_label": ("malformed", "targets: huge_label: malformed exposition: line 1: "),
    "cut_off": (
        "malformed",
        "targets: cut_off: malformed exposition: "
        "line 2: 'a 1': expected '# EOF' as the last line: the answer was cut off",
    ),
    "cut_gzip": ("connection", "targets: cut_gzip cut its gzip off after 500 bytes"),
    "brotli": ("not_exposition", "targets: brotli answered with Content-Encoding 'br', and gzip was asked for"),
    "locked": (
        "http_status",
        "targets: locked answered 401 Unauthorized; is the target's bearer_token or bearer_token_file right?",
    ),
    "hang_up": ("connection", "targets: hang_up broke off (Server disconnected) after 0 bytes"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_bad_target_gets_its_error_and_metric_and_the_good_one_is_served(hosts: Hosts, name: str) -> None:
    setup = Setup(hosts, "good", name, max_body=MIB)
    await setup.scraper.once()
    reason, error = FAILURES[name]
    status = setup.status(name)
    assert (status.up, status.last_reason) == (False, reason)
    assert status.last_error.startswith(error.replace("{port}", hosts.url.rpartition(":")[2]))
    assert setup.count("tidegauge_scrape_failures_total", target=name, reason=reason) == 1
    assert setup.count("tidegauge_target_up", target=name, engine="unknown") == 0
    assert RUNNING in setup.text()


async def test_refused_connections_say_where_nobody_listens(hosts: Hosts, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    setup = Setup(hosts, targets=[{"url": url, "labels": {"instance": "gone"}}])
    (result,) = await setup.scraper.once()
    assert result.reason == "connection"
    assert result.error == f"targets: gone cannot be reached (Connection refused); does it listen at {url}?"


async def test_https_where_there_is_none_says_so(hosts: Hosts) -> None:
    setup = Setup(hosts, targets=[{"url": hosts.url.replace("http", "https"), "labels": {"instance": "plain"}}])
    (result,) = await setup.scraper.once()
    assert result.reason == "connection"
    assert result.error.startswith("targets: plain cannot be reached (no TLS connection: ")


async def test_a_target_with_a_key_gets_it_and_no_text_shows_it(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key\n")
    setup = Setup(hosts, targets=[{"url": f"{hosts.url}/locked", "bearer_token_file": str(tmp_path / "key")}])
    (result,) = await setup.scraper.once()
    assert result.ok
    assert "key" not in repr(result.target)


async def test_a_gigabyte_is_not_read_further_than_the_limit(hosts: Hosts) -> None:
    setup = Setup(hosts, "gigabyte", "good", timeout=5, interval=5)
    results = await setup.scraper.once()
    await asyncio.sleep(0.1)
    assert [result.reason for result in results] == ["too_large", ""]
    # What the server could write before it noticed: the limit and the sockets' buffers.
    assert hosts.sent < setup.settings.max_body + 16 * MIB


async def test_all_of_them_at_once_leave_the_good_one_in_step(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", *FAILURES, max_body=MIB)

    def twice() -> bool:
        statuses = setup.scraper.statuses()
        bad = [status for status in statuses if status.name != "good" and status.failures_in_a_row < 2]
        return bool(statuses) and not bad and sum(result.ok for result in setup.results) >= 2

    served: list[str] = []
    await setup.runs(lambda: twice() and bool(served.append(setup.text()) or True), limit=15)
    assert RUNNING in served[-1]
    assert setup.count("tidegauge_loop_errors_total", loop="scrape") is None


async def test_hundreds_that_hang_keep_nobody_waiting(hosts: Hosts) -> None:
    urls = {f"hanging-{number}": f"{hosts.url}/hanging?{number}" for number in range(100)}
    targets = [
        {"url": url, "labels": {"instance": name}} for name, url in {**urls, "good": f"{hosts.url}/good"}.items()
    ]
    *hanging, good = await Setup(hosts, targets=targets, timeout=3, interval=5).scraper.once()
    assert {result.reason for result in hanging} == {"timeout"}
    assert (good.target.name, good.reason) == ("good", "")


async def test_new_labels_with_every_scrape_are_refused_at_the_limit_and_the_good_one_goes_on(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", "exploding", max_series=5_000, interval=30, timeout=20)
    rounds = [[result.reason for result in await setup.scraper.once()] for _ in range(4)]
    # 3,000 at first, 3,000 new ones of the hour's 5,000, and no more.
    assert rounds == [["", ""], ["", ""], ["", "too_many_series"], ["", "too_many_series"]]
    assert setup.status("exploding").samples == 3_000


async def test_a_scrape_asks_for_openmetrics_and_gzip_and_reads_both(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", "good_gzip")
    results = await setup.scraper.once()
    assert hosts.seen[0]["Accept"].startswith("application/openmetrics-text;version=1.0.0")
    assert hosts.seen[0]["Accept-Encoding"] == "gzip"
    assert [(result.samples, result.body_bytes) for result in results] == [(442, len(GOOD))] * 2


async def test_a_good_scrape_shows_in_status_metrics_and_rows(hosts: Hosts) -> None:
    setup = Setup(hosts, "good")
    (result,) = await setup.scraper.once()
    status = setup.status("good")
    assert (status.up, status.engine, status.models, status.samples, status.series) == (
        True,
        "vllm",
        ("tiny-llama",),
        442,
        271,
    )
    assert setup.count("tidegauge_scrape_samples", target="good") == 442
    assert setup.count("tidegauge_scrape_last_success_timestamp_seconds", target="good") == result.at
    assert setup.tables[0].select(["target", "requests_running"]).to_pylist() == [
        {"target": "good", "requests_running": 27.0}
    ]


async def test_a_large_answer_is_parsed_beside_the_loop_with_the_same_outcome(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", parse_in_thread_above=0)
    (result,) = await setup.scraper.once()
    assert result.samples == 442
    assert RUNNING in setup.text()


async def test_a_sink_that_fails_is_counted_and_the_scraping_goes_on(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", interval=0.1, timeout=0.1)

    async def fails(table: pa.Table) -> None:
        raise OSError("disk full")

    setup.scraper._sink = fails
    counted = "tidegauge_loop_errors_total"
    await setup.runs(lambda: (setup.count(counted, loop="scrape") or 0) >= 3)
    assert len(hosts.seen) >= 3


async def test_file_sd_is_followed_while_running(hosts: Hosts, tmp_path: Path) -> None:
    listed = tmp_path / "t.yaml"
    port = hosts.url.rpartition(":")[2]
    entry = "- {targets: ['127.0.0.1:%s'], labels: {instance: %s, __metrics_path__: /good}}\n"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(listed)

    write(entry % (port, "one"))
    setup = Setup(hosts, file_sd=[str(tmp_path / "*.yaml")], file_sd_refresh=0.05, interval=0.1, timeout=0.1)
    steps: list[object] = []

    def names() -> list[str]:
        # On a busy machine a scrape may fail now and then; what was scraped once is listed.
        return [status.name for status in setup.scraper.statuses() if status.last_success is not None]

    def follow() -> bool:
        if not steps and names() == ["one"]:
            steps.append("one")
            write(entry % (port, "one") + entry % (port, "two"))
        elif steps == ["one"] and names() == ["one", "two"]:
            steps.append("both")
            write("[{")
        elif len(steps) == 2 and setup.scraper.discovery_errors():
            steps.append(names())
            write(entry % (port, "two"))
        elif len(steps) == 3 and names() == ["two"]:
            steps.append('target="one"' in setup.text())
        return len(steps) == 4

    await setup.runs(follow)
    assert steps == ["one", "both", ["one", "two"], False]


async def test_stopping_twice_or_before_the_start_is_harmless(hosts: Hosts) -> None:
    setup = Setup(hosts, "hanging", interval=0.1, timeout=0.1)
    for _ in range(2):
        task = asyncio.create_task(setup.scraper.run())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await setup.runs(lambda: bool(setup.results))
    assert setup.scraper.statuses() == []


async def test_after_a_stop_it_can_be_started_again(hosts: Hosts) -> None:
    setup = Setup(hosts, "good", parse_in_thread_above=0)
    for _ in range(2):
        setup.results.clear()
        await setup.runs(lambda: any(result.ok for result in setup.results))
    assert setup.count("tidegauge_loop_errors_total", loop="scrape") is None


async def test_a_scrape_in_a_thread_does_not_outlive_the_stop(hosts: Hosts) -> None:
    setup = Setup(hosts, "big", interval=0.5, timeout=0.5, max_series=100_000)
    await setup.runs(lambda: hosts.rounds > 0)
    await asyncio.sleep(1)
    assert setup.scraper.statuses() == []
    assert 'target="big"' not in setup.text()


def test_turns_are_spread_over_the_interval_and_the_same_every_time() -> None:
    turns = [phase(f"http://gpu-{number}:8000/metrics", 5.0) for number in range(200)]
    assert turns == [phase(f"http://gpu-{number}:8000/metrics", 5.0) for number in range(200)]
    # 200 even draws over 5 slots: 40 each, deviation 5.7; 4 deviations are 23.
    slots = [sum(int(turn) == slot for turn in turns) for slot in range(5)]
    assert all(17 <= count <= 63 for count in slots)
