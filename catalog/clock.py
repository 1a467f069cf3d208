"""Time comes from a clock that is passed in, so that a recording can be replayed at any speed."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Unix time in seconds, and a sleep measured by it."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""

    async def sleep(self, seconds: float) -> None:
        """Returns when `seconds` have passed on this clock; at once for zero or less."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleeps in real time."""
        await asyncio.sleep(max(seconds, 0.0))
