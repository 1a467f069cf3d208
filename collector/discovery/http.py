"""Prometheus's HTTP service discovery: a URL that answers with groups of targets."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from collector.discovery.found import DiscoveryError, Found
from collector.discovery.groups import founds_in
from collector.discovery.settings import HttpDiscoverySettings

MAX_BYTES = 16 * 1024 * 1024


class HttpDiscovery:
    """One URL, asked every `refresh`."""

    kind = "http_sd"

    def __init__(self, settings: HttpDiscoverySettings, *, checking: bool) -> None:
        parts = urlsplit(settings.url)
        self._shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self.name = f"http_sd {self._shown}"
        self._settings = settings
        self._checking = checking
        self._session: aiohttp.ClientSession | None = None
        self._found: Sequence[Found] = ()

    def found(self) -> Sequence[Found]:
        """The last good answer's targets."""
        return self._found

    async def step(self, good: Callable[[], None]) -> None:
        """Asks once."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with asyncio.timeout(self._settings.timeout):
                body = await self._asked(self._session)
            meta = {"__meta_url": self._shown}
            self._found = founds_in(json.loads(body), self.name, meta, checking=self._checking)
        except TimeoutError:
            raise DiscoveryError(f"did not answer within {self._settings.timeout:g} s") from None
        except json.JSONDecodeError as error:
            raise DiscoveryError(f"answered with what is not JSON: line {error.lineno}: {error.msg}") from None
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            raise DiscoveryError(str(error)[:300] or type(error).__name__) from None
        good()

    async def _asked(self, session: aiohttp.ClientSession) -> bytes:
        # Prometheus sends the interval, so that the other side can go by it.
        headers = {
            "Accept": "application/json",
            "User-Agent": "tidegauge",
            "X-Prometheus-Refresh-Interval-Seconds": f"{self._settings.refresh:g}",
            **self._login(),
        }
        async with session.get(self._settings.url, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                raise DiscoveryError(f"answered {answer.status} {answer.reason or ''}".strip())
            body = await answer.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES + 1 - len(body))):
                body += more
            if len(body) > MAX_BYTES:
                answer.close()
                raise DiscoveryError(f"answered with more than {MAX_BYTES} bytes")
            return body

    def _login(self) -> Mapping[str, str]:
        token = self._settings.token()
        headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        return {"Authorization": f"Bearer {token}", **headers} if token else headers

    def pause(self, failures: int) -> float:
        """The interval, whether it went well or not."""
        return self._settings.refresh

    async def close(self) -> None:
        """Ends the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
