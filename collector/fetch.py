"""One HTTP request to a target, with bounds on time and size, and an error that says what to do."""

import asyncio
import os
import resource
import zlib
from dataclasses import dataclass

import aiohttp

from catalog.engine import engines
from collector.targets import Target

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
_CHUNK = 64 * 1024
_NOT_EXPOSITIONS = ("text/html", "application/json", "application/xhtml+xml", "text/xml", "application/xml")


class ScrapeFailure(Exception):
    """A target was not scraped; `reason` is the label of the metric, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer that may be an exposition; `openmetrics` is None where the content type does not tell."""

    text: str
    openmetrics: bool | None


def new_session(keep_alive: float = 30.0) -> aiohttp.ClientSession:
    """A session for `fetch`: no cookies, no proxies of the environment, decompression left to us (it is bounded).

    A connection is kept for `keep_alive` seconds.  There is no bound on their number but that of the targets, of which
    each has one request at a time: else those that hang would keep the others waiting.  Names are looked up without
    threads, for the same reason.
    """
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive, resolver=aiohttp.AsyncResolver()),
        headers={"Accept": ACCEPT, "Accept-Encoding": "gzip", "User-Agent": "tidegauge"},
    )


def allow_connections() -> None:
    """Lets this process open as many files as it may: 1,000 targets are 1,000 connections, and 1,024 is a usual bound.

    (Go's runtime does the same.)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def fetch(session: aiohttp.ClientSession, target: Target, within: float, max_body: int) -> Fetched:
    """The target's answer.  Raises ScrapeFailure.

    Reads no more than `max_body` bytes, neither from the wire nor out of a compressed body.  Redirects are not
    followed: a target that moved should be configured where it is.
    """
    body = bytearray()
    answered = False
    try:
        headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
        async with (
            asyncio.timeout(within),
            session.get(target.url, allow_redirects=False, headers=headers) as response,
        ):
            answered = True
            refusal = response.status != 200
            await _read(response, body, min(max_body, 4096) if refusal else max_body, target, cut=refusal)
            return _checked(target, response, bytes(body))
    except TimeoutError:
        raise ScrapeFailure("timeout", _late(target, within, answered, len(body))) from None
    except aiohttp.ClientConnectorError as error:
        text = f"targets: {target.name} cannot be reached ({_cause(error)}); does it listen at {target.shown_url}?"
        raise ScrapeFailure("connection", text) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        what = str(error) or type(error).__name__
        text = f"targets: {target.name} broke off ({what[:200]}) after {len(body)} bytes"
        raise ScrapeFailure("connection", text) from None


def _cause(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientSSLError):
        return f"no TLS connection: {str(error)[-160:]}"
    number = error.os_error.errno or 0
    return os.strerror(number) if number > 0 else (error.os_error.strerror or str(error.os_error))[:200]


async def _read(response: aiohttp.ClientResponse, body: bytearray, limit: int, target: Target, *, cut: bool) -> None:
    """Fills `body`; past the limit it stops, with an error unless `cut`."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", ""):
        text = f"targets: {target.name} answered with Content-Encoding {encoding[:40]!r}, and gzip was asked for"
        raise ScrapeFailure("not_exposition", text)
    inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    received = 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        received += len(chunk)
        body += chunk if inflate is None else _inflated(inflate, chunk, limit + 1 - len(body), target)
        if len(body) > limit or received > limit:
            response.close()  # what is left of it stays unread, and the connection is not used again
            if cut:
                return
            raise ScrapeFailure(
                "too_large",
                f"targets: {target.name} answered with more than {limit} bytes; raise scrape.max_body if that is right",
            )
    if inflate is not None and not inflate.eof and not cut:
        raise ScrapeFailure("connection", f"targets: {target.name} cut its gzip off after {received} bytes")


def _inflated(inflate: "zlib._Decompress", chunk: bytes, room: int, target: Target) -> bytes:
    try:
        return inflate.decompress(chunk, room)
    except zlib.error as error:
        text = f"targets: {target.name} answered with gzip that cannot be read: {error}"
        raise ScrapeFailure("not_exposition", text) from None


def _late(target: Target, within: float, answered: bool, received: int) -> str:
    if not answered:
        return f"targets: {target.name} did not answer within {within:g} s"
    return f"targets: {target.name} began to answer, but had sent only {received} bytes after {within:g} s"


def _checked(target: Target, response: aiohttp.ClientResponse, body: bytes) -> Fetched:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if response.status != 200:
        raise ScrapeFailure("http_status", _refused(target, response, body))
    if kind in _NOT_EXPOSITIONS or body[:64].lstrip()[:1] in (b"<", b"["):
        said = f"with {kind}" if kind else "without a content type"
        text = f"targets: {target.name} answered, but {said} (first bytes {_first(body)}); is the path /metrics?"
        raise ScrapeFailure("not_exposition", text)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        text = f"targets: {target.name} answered with bytes that are not UTF-8, the first at {error.start}"
        raise ScrapeFailure("malformed", text) from None
    known = {"application/openmetrics-text": True, "text/plain": False}
    return Fetched(text, known.get(kind))


def _refused(target: Target, response: aiohttp.ClientResponse, body: bytes) -> str:
    said = body[:4096].decode(errors="replace")
    for engine in engines().values():
        for refusal in engine.refusals:
            if refusal.status == response.status and refusal.contains in said:
                return f"targets: {target.name} answered {response.status}: {refusal.hint}"
    status = f"{response.status} {response.reason or ''}".strip()
    if 300 <= response.status < 400:
        where = response.headers.get("Location", "nowhere")[:200]
        return f"targets: {target.name} answered {status} to {where!r}; write that address as its url"
    login = "is the target's bearer_token or bearer_token_file right?"
    hints = {401: login, 403: login, 404: f"is {target.shown_url} the right path?"}
    hint = hints.get(response.status)
    return f"targets: {target.name} answered {status}" + (f"; {hint}" if hint else f" (first bytes {_first(body)})")


def _first(body: bytes) -> str:
    """The beginning of a body, one line of it, quoted."""
    line = body.lstrip()[:40].decode(errors="replace").partition("\n")[0]
    return repr(line.strip())
