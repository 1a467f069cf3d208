"""Writes to one endpoint: samples go to the queue on disk by the clock, and from there to the endpoint in order."""

import asyncio
import base64
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import pyarrow as pa

from catalog.clock import Clock
from catalog.family import families
from catalog.instruments import Instruments
from collector.remote_write.queue import DiskQueue, Waiting
from collector.remote_write.sampler import Sampler
from collector.remote_write.settings import RemoteWriteSettings
from collector.remote_write.wire import as_v2

LOG = logging.getLogger(__name__)
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
IDLE_SECONDS = 0.2
SHOWN = 200
WRITTEN = "X-Prometheus-Remote-Write-Samples-Written"
VERSIONS = {
    "1.0": {"Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0"},
    "2.0": {
        "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "X-Prometheus-Remote-Write-Version": "2.0.0",
    },
}


class Retry(Exception):
    """The endpoint cannot take it now; `after` is what it asked for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class RemoteWriter:
    """One endpoint.  `page` gives what `/metrics` serves; `directory` keeps the queue."""

    def __init__(
        self,
        settings: RemoteWriteSettings,
        page: Callable[[], str],
        directory: Path,
        clock: Clock,
        metrics: Instruments,
        rng: random.Random,
    ) -> None:
        self.settings = settings
        self.name = settings.endpoint()
        self._page = page
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._queue = DiskQueue(directory / f"{_file(self.name)}.sqlite", settings.max_queue_bytes)
        self._sampler = Sampler(settings.labels, settings.max_samples)
        self.protocol = "2.0" if settings.protocol == "auto" else settings.protocol
        self._families: Mapping[str, tuple[str, str, str]] = _metadata()
        self._said = ""
        for status in ("sent", "dropped", "rejected"):
            metrics.counters.tidegauge_remote_write_samples_total.labels(self.name, status)

    async def run(self) -> None:
        """Samples and sends until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout)
        async with aiohttp.ClientSession(timeout=timeout) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample_by_the_clock())
            tasks.create_task(self._send_all(client))

    def close(self) -> None:
        """Closes the queue; what waits in it is sent after the next start."""
        self._queue.close()

    def sample(self) -> None:
        """Puts the series' values of now into the queue."""
        at = self._clock.now()
        dropped = 0
        for request in self._sampler.requests(self._page(), at):
            dropped += self._queue.put(at, request.samples, request.body)
        self._count("dropped", dropped)
        self._show()

    async def _sample_by_the_clock(self) -> None:
        while True:
            # Everybody's samples at multiples of the interval: replicas' are comparable.
            now = self._clock.now()
            await self._clock.sleep(self.settings.interval - now % self.settings.interval)
            try:
                await asyncio.to_thread(self.sample)
            except Exception:
                LOG.exception("remote_write_not_sampled", extra={"endpoint": self.name})
                self._metrics.counters.tidegauge_loop_errors_total.labels(loop="remote_write").inc()

    async def _send_all(self, client: aiohttp.ClientSession) -> None:
        wait = FIRST_WAIT
        while True:
            waiting = await asyncio.to_thread(self._queue.head)
            if waiting is None:
                await self._clock.sleep(IDLE_SECONDS)
                continue
            try:
                await self._send(client, waiting)
                wait = FIRST_WAIT
            except (Retry, aiohttp.ClientError, TimeoutError, OSError) as error:
                self._metrics.counters.tidegauge_remote_write_requests_total.labels(self.name, "retried").inc()
                self._say("retried", f"{type(error).__name__}: {error}")
                asked = error.after if isinstance(error, Retry) else None
                await self._clock.sleep(asked if asked is not None else wait * self._rng.uniform(0.5, 1.0))
                wait = min(2 * wait, LONGEST_WAIT)
            self._show()

    async def _send(self, client: aiohttp.ClientSession, waiting: Waiting) -> None:
        """Sends one request and forgets it, unless it has to come again.  Raises Retry."""
        body, headers = await asyncio.to_thread(self._encoded, waiting)
        async with client.post(self.settings.url, data=body, headers=headers) as answer:
            status, text = answer.status, (await answer.content.read(SHOWN)).decode("utf-8", "replace")
            said = answer.headers
        if self._not_of_this_protocol(status, said):
            raise Retry("the endpoint takes remote write 1.0", after=0.0)
        if status // 100 == 2:
            self._finished(waiting, "sent", "ok")
            self._said = ""
        elif status == 429 or status >= 500:
            raise Retry(f"{status}: {text}", _seconds(said.get("Retry-After")))
        else:
            # It would be refused for ever, and hold up all that comes after it.
            self._finished(waiting, "rejected", "rejected")
            self._say("rejected", f"{status}: {text}")

    def _not_of_this_protocol(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether a receiver of 1.0 got a request of 2.0: it says so, or takes it for an empty one."""
        if self.protocol != "2.0" or self.settings.protocol != "auto":
            return False
        if status == 415 or status == 400 or (status // 100 == 2 and WRITTEN not in headers):
            self.protocol = "1.0"
            return True
        return False

    def _finished(self, waiting: Waiting, samples: str, outcome: str) -> None:
        self._queue.done(waiting.number)
        self._count(samples, waiting.samples)
        self._metrics.counters.tidegauge_remote_write_requests_total.labels(self.name, outcome).inc()

    def _encoded(self, waiting: Waiting) -> tuple[bytes, dict[str, str]]:
        body = waiting.body if self.protocol == "1.0" else as_v2(waiting.body, self._families)
        compressed = pa.compress(body, codec="snappy", asbytes=True)
        return compressed, {
            "Content-Encoding": "snappy",
            "User-Agent": "tidegauge",
            **VERSIONS[self.protocol],
            **self._credentials(),
        }

    def _credentials(self) -> dict[str, str]:
        settings = self.settings
        made = {name: value.get_secret_value() for name, value in settings.headers.items()}
        if settings.bearer_token is not None:
            made["Authorization"] = f"Bearer {settings.bearer_token.get_secret_value()}"
        elif settings.bearer_token_file is not None:
            made["Authorization"] = f"Bearer {settings.bearer_token_file.read_text().strip()}"
        elif settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else ""
            made["Authorization"] = "Basic " + base64.b64encode(f"{settings.username}:{password}".encode()).decode()
        return made

    def _count(self, status: str, samples: int) -> None:
        self._metrics.counters.tidegauge_remote_write_samples_total.labels(self.name, status).inc(samples)

    def _show(self) -> None:
        backlog = self._queue.backlog()
        lag = 0.0 if backlog.oldest is None else max(0.0, self._clock.now() - backlog.oldest)
        self._metrics.gauges.tidegauge_remote_write_queue_bytes.labels(self.name).set(backlog.bytes)
        self._metrics.gauges.tidegauge_remote_write_lag_seconds.labels(self.name).set(lag)

    def _say(self, what: str, reason: str) -> None:
        """Once per kind of trouble, not once per request."""
        if self._said != what:
            self._said = what
            LOG.warning("remote_write_" + what, extra={"endpoint": self.name, "reason": reason[:SHOWN]})


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else min(max(float(text), 0.0), 10 * LONGEST_WAIT)
    except ValueError:
        return None


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _metadata() -> dict[str, tuple[str, str, str]]:
    found: dict[str, tuple[str, str, str]] = {}
    for family in families().values():
        for sample in (family.name, *(f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count"))):
            found[sample] = (str(family.kind), family.help, "")
    return found
