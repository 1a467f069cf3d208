"""A list of targets fed by sources, and a local server that plays them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry

from catalog.clock import SystemClock
from catalog.instruments import Instruments
from collector.discovery.listing import TargetList
from collector.discovery.relabel import RelabelSettings
from collector.discovery.settings import ShardSettings
from collector.discovery.source import Followed, Source
from collector.targets import checked

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers everything with `handler`; its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Listed:
    """The list of targets that some sources make."""

    def __init__(
        self,
        *sources: Source,
        static: tuple[str, ...] = (),
        relabel: tuple[RelabelSettings, ...] = (),
        shard: ShardSettings | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        metrics = Instruments(self.registry)
        self.followed = [Followed(source, SystemClock(), metrics) for source in sources]
        self.list = TargetList([checked(url) for url in static], (), metrics, self.followed, relabel, shard)

    async def look(self) -> dict[str, str]:
        """One look at every source; URL by name of each target."""
        for one in self.followed:
            await one.look()
        return self.targets()

    def targets(self) -> dict[str, str]:
        """URL by name of each target."""
        return {target.name: target.url for target in self.list.refresh()}

    def count(self, name: str, **labels: str) -> float | None:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels)

    async def close(self) -> None:
        """Ends the sources."""
        for one in self.followed:
            await one.source.close()
