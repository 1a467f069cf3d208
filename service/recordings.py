"""At most one flight recording at a time, started and ended while the service runs."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from catalog.clock import Clock
from service.replay.recorder import CannotRecord, Clean, Recorder

LOOK_SECONDS = 0.5
Taps = Callable[[Recorder | None], None]


class Recordings:
    """Starts, follows and ends the recording; `tap` puts a recorder on what arrives, or takes it off."""

    def __init__(self, clock: Clock, tap: Taps, clean: Clean) -> None:
        self._clock = clock
        self._clean = clean
        self._tap = tap
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None

    def start(self, out: Path, seconds: float, max_bytes: int) -> dict[str, Any]:
        """Begins to record into `out`.  Raises CannotRecord."""
        with self._lock:
            if self._recorder is not None and not self._recorder.state.ended:
                raise CannotRecord(f"a recording to {self._recorder.state.out} is going on; end it first")
            self._recorder = Recorder(out, self._clock, seconds, max_bytes, self._clean)
            self._tap(self._recorder)
            return asdict(self._recorder.state)

    def state(self) -> dict[str, Any] | None:
        """The recording that goes on, or the last one; None if there was none."""
        return None if self._recorder is None else asdict(self._recorder.state)

    def stop(self, why: str = "stopped") -> dict[str, Any] | None:
        """Ends the recording, if one goes on, and waits until its files are whole."""
        with self._lock:
            if self._recorder is None:
                return None
            self._tap(None)
            return asdict(self._recorder.stop(why))

    async def run(self) -> None:
        """Ends a recording whose time or space is over."""
        while True:
            recorder = self._recorder
            if recorder is not None and recorder.open and (recorder.due() or recorder.state.ended):
                await asyncio.to_thread(self.stop, "time")
            await self._clock.sleep(LOOK_SECONDS)
