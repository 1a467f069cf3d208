"""A source of targets that is asked over the network: its last good answer stays in use."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from catalog.clock import Clock
from catalog.instruments import Instruments
from collector.discovery.found import DiscoveryError, Found

LOG = logging.getLogger(__name__)


class Source(Protocol):
    """Where targets come from."""

    kind: str  # the setting: http_sd, dns_sd, kubernetes_sd
    name: str  # which one of them, fit for people and logs

    def found(self) -> Sequence[Found]:
        """The targets of the last good answer; the same object while nothing changes.  May be called in a thread."""

    async def step(self, good: Callable[[], None]) -> None:
        """Looks once, or follows changes as long as that lasts; calls `good` with each good answer.

        Raises DiscoveryError; then what was found before stays.
        """

    def pause(self, failures: int) -> float:
        """Seconds until the next step, after so many failures in a row."""

    async def close(self) -> None:
        """Ends its connections; may be called twice."""


class Followed:
    """A source that is asked again and again, and how that goes."""

    def __init__(self, source: Source, clock: Clock, metrics: Instruments) -> None:
        self.source = source
        self.error = ""
        self.last_success: float | None = None
        self._failures = 0
        self._clock = clock
        self._metrics = metrics

    async def follow(self) -> None:
        """Goes on until it is cancelled."""
        try:
            while True:
                await self.look()
                await self._clock.sleep(self.source.pause(self._failures))
        finally:
            await self.source.close()

    async def look(self) -> None:
        """One step; never raises for what the other side does."""
        try:
            await self.source.step(self._good)
        except Exception as error:  # whatever they answer, the others are followed on
            self._bad(str(error) if isinstance(error, DiscoveryError) else f"{type(error).__name__}: {error}")

    def _good(self) -> None:
        self.error, self._failures, self.last_success = "", 0, self._clock.now()

    def _bad(self, what: str) -> None:
        if not self.error:  # once, not once per round
            LOG.warning("discovery_failed", extra={"source": self.source.name, "error": what[:300]})
        known = len(self.source.found())
        self.error = what[:500] + (f"; its last answer ({known} targets) stays in use" if known else "")
        self._failures += 1
        self._metrics.counters.tidegauge_discovery_errors_total.labels(source=self.source.kind).inc()
