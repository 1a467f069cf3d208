"""A fleet that serves a recorded vLLM, as cheaply as Python can, in a process of its own.

Target number N listens at 127.1.N // 250.N % 250 + 1: one socket, and to a scraper as many hosts as there are targets.
Every request gets the recording's next scrape, compressed where that is asked for.  Some targets hang, send garbage,
or bring new label values with every scrape.
"""

import asyncio
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import cast

SCRAPES = Path(__file__).parents[1] / "tests" / "data" / "engines" / "vllm-0.32.0"
BACKLOG = 4096
NEW_SERIES_A_SCRAPE = 2_000
KINDS = ("hanging", "garbage", "exploding")


def host(number: int) -> str:
    """The address of a target."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def number_of(address: str) -> int:
    """The target at an address."""
    _, _, high, low = address.split(".")
    return int(high) * 250 + int(low) - 1


def kind_of(number: int, every: int) -> str:
    """How a target behaves: of each `every` targets one hangs, one sends garbage, one explodes; 0 is all good.

    >>> [kind_of(number, 20) for number in (0, 1, 2, 3, 20)]
    ['hanging', 'garbage', 'exploding', 'good', 'hanging']
    """
    place = number % every if every else len(KINDS)
    return KINDS[place] if place < len(KINDS) else "good"


class Fleet:
    """What each target serves, and when it was asked."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.plain = [gzip.decompress(path.read_bytes()) for path in sorted(SCRAPES.glob("*.gz"))]
        self.zipped = [answer(gzip.compress(text, 6), zipped=True) for text in self.plain]
        self.answers = [answer(text) for text in self.plain]
        self.asked: dict[int, list[float]] = {}

    def serve(self, number: int, zipped: bool) -> bytes | None:
        """The answer to a target's next request; None for one that never comes."""
        asked = self.asked.setdefault(number, [])
        asked.append(perf_counter())
        kind = kind_of(number, self.every)
        place = (number + len(asked)) % len(self.plain)
        if kind == "hanging":
            return None
        if kind == "garbage":
            return answer(self.plain[place][: 1_000 + 40 * number] + b"\xff\x00{{{")
        if kind == "exploding":
            ids = range(NEW_SERIES_A_SCRAPE * len(asked))
            more = "".join(f'vllm:exploding{{id="{len(asked)}-{one}"}} 1\n' for one in ids)
            return answer(self.plain[place] + more.encode())
        return self.zipped[place] if zipped else self.answers[place]


def answer(body: bytes, *, zipped: bool = False) -> bytes:
    """An HTTP answer with a body."""
    coding = "Content-Encoding: gzip\r\n" if zipped else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n{coding}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """Answers GET after GET on one connection."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._number = number_of(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        self._request += data
        while (end := self._request.find(b"\r\n\r\n")) >= 0:
            head, self._request = self._request[:end], self._request[end + 4 :]
            reply = self._fleet.serve(self._number, b"gzip" in head)
            if reply is not None:
                self._transport.write(reply)


async def serve(port: int, every: int, done: Callable[[], asyncio.Future[None]]) -> Fleet:
    """Serves until `done`."""
    fleet = Fleet(every)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(fleet), "0.0.0.0", port, backlog=BACKLOG)
    print("ready", flush=True)
    await done()
    server.close()
    return fleet


def main(port: int, every: int) -> None:
    """Serves until its input ends, then prints when each target was asked, as JSON."""

    def done() -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, lambda: (sys.stdin.read(), None)[1])

    fleet = asyncio.run(serve(port, every, done))
    json.dump(fleet.asked, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
