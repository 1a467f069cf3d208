"""How long the event loop keeps those waiting who could go on: every listener, scrape and acknowledgement."""

import asyncio
from collections.abc import Callable
from time import perf_counter

PERIOD_SECONDS = 0.2


async def watch(observe: Callable[[float], None], period: float = PERIOD_SECONDS) -> None:
    """Tells, until cancelled, how much later than asked for a sleep ended.

    Threads that hold the interpreter's lock show here, too.  Real time, whatever the service's clock says.
    """
    while True:
        asked = perf_counter() + period
        await asyncio.sleep(period)
        observe(max(0.0, perf_counter() - asked))
