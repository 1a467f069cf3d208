"""The lag of the event loop."""

import asyncio
import time

from service.loop_lag import watch


async def test_a_blocked_loop_shows_as_lag() -> None:
    told: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch(told.put_nowait, period=0.01))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - what nobody should do
    assert await told.get() > 0.25
    watching.cancel()
