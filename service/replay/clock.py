"""A recording's time: it moves when the replay says so, and goes on as real time afterwards."""

import asyncio
import time


class ReplayClock:
    """Shows the moment of the recording that is being replayed, moved to now."""

    def __init__(self, start: float) -> None:
        self._now: float | None = start

    def now(self) -> float:
        """Unix seconds."""
        return time.time() if self._now is None else self._now

    def advance(self, to: float) -> None:
        """Moves to `to`; never back."""
        if self._now is not None:
            self._now = max(self._now, to)

    def release(self) -> None:
        """From here on the clock is the machine's."""
        self._now = None

    async def sleep(self, seconds: float) -> None:
        """Returns when the clock has moved on by `seconds`."""
        until = self.now() + seconds
        # The replay moves the time without telling: a look now and then is cheaper than an event per arrival.
        while self.now() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01 if self._now is not None else min(until - self.now(), 0.5))
