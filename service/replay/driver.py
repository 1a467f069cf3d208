"""Drives the service through a recording: arrivals in order, and the service's own rounds between them.

Time moves from event to event and every event is finished before the next, so what is found does not depend on the
speed: speed only says how long to wait in between.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from service.replay.clock import ReplayClock
from service.replay.recording import Event, Export, FailedScrape, GpuLook, Recording, Scrape

# After the last event the service's rounds go on until everything has settled and the windows have closed.
TAIL_SECONDS = 120.0


class Stage(Protocol):
    """What the replay drives; times are the replay's own."""

    async def export(self, export: Export, at: float, shift: float) -> None:
        """Takes in an OTLP request whose times have to be moved by `shift` seconds."""

    def scrape(self, scrape: Scrape | FailedScrape, at: float) -> None:
        """Takes in a scrape, good or failed."""

    def gpu(self, look: GpuLook, at: float) -> None:
        """Takes in a reading of a GPU."""


@dataclass(frozen=True, order=True)
class _Due:
    at: float
    order: int
    act: Callable[[float], Awaitable[None]] = field(compare=False)


@dataclass(frozen=True)
class Round:
    """Something that the service does every `every` seconds of the recording, counted from its start."""

    every: float
    act: Callable[[float], Awaitable[None]]


@dataclass
class Progress:
    """How far the replay is; `position` and `length` in seconds of the recording."""

    length: float
    position: float = 0.0
    done: bool = False


class Replay:
    """One run through a recording."""

    def __init__(self, recording: Recording, speed: float, wall: Callable[[], float] = time.time) -> None:
        self._recording = recording
        self._speed = speed
        self._wall = wall
        length = recording.end - recording.start + TAIL_SECONDS
        self._wall_start = wall()
        # Moved so that the replay's last moment is the real time at which it is reached.
        self.shift = self._wall_start + length / speed - (recording.start + length)
        self.start = recording.start + self.shift
        self.clock = ReplayClock(self.start)
        self.progress = Progress(length)

    async def run(self, stage: Stage, rounds: list[Round]) -> None:
        """Replays to the end, then hands the clock back to the machine."""
        stop = self.start + self.progress.length
        arrivals = (_Due(event.at + self.shift, 0, self._arrival(stage, event)) for event in self._recording.events())
        # What arrives at a moment comes before the rounds of that moment, and rounds in the order they were given.
        ticks = [_ticks(self.start, stop, number, each) for number, each in enumerate(rounds, 1)]
        for due in heapq.merge(arrivals, *ticks):
            await self._wait(due.at)
            self.clock.advance(due.at)
            self.progress.position = due.at - self.start
            await due.act(due.at)
        self.clock.release()
        self.progress.position = self.progress.length
        self.progress.done = True

    def _arrival(self, stage: Stage, event: Event) -> Callable[[float], Awaitable[None]]:
        async def act(at: float) -> None:
            if isinstance(event, Export):
                await stage.export(event, at, self.shift)
            elif isinstance(event, Scrape | FailedScrape):
                stage.scrape(event, at)
            else:
                stage.gpu(event, at)

        return act

    async def _wait(self, at: float) -> None:
        ahead = self._wall_start + (at - self.start) / self._speed - self._wall()
        if ahead > 0.005:
            await asyncio.sleep(ahead)


def _ticks(start: float, stop: float, order: int, each: Round) -> Iterator[_Due]:
    for number in itertools.count(1):
        at = start + number * each.every
        if at > stop:
            return
        yield _Due(at, order, each.act)
