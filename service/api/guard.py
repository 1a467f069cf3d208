"""What a request must pass before any route sees it: its Host, its origin, its size, and a key to send telemetry."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Problem
from service.auth import Gate, Role

MAX_BODY_BYTES = 1024 * 1024
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# OTLP has its own bound on bodies, and its own content types.
OTLP = "/v1/"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    # The console needs no scripts, and its one style sheet is its own: what a prompt smuggles in can do nothing.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, gate: Gate, public_url: str) -> None:
        self._app = app
        self._gate = gate
        self._host = (urlsplit(public_url).hostname or "").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers with a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, _secured(send))
            return
        if scope["path"].startswith(OTLP):
            await self._app(scope, receive, send)
            return
        await self._bounded(scope, receive, _secured(send), headers)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raises Problem."""
        host = hostname(headers.get("host", ""))
        # A page of another site that had its name point here would come with that name (DNS rebinding).
        if self._gate.open() and is_loopback(self._host) and not (is_loopback(host) or host == self._host):
            raise Problem(403, f"This service answers to localhost, not to {host[:200]!r}.")
        if scope["method"] not in SAFE:
            origin = headers.get("origin")
            own = origin is None or _same(origin, headers.get("host", "")) or urlsplit(origin).hostname == self._host
            if not own or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                raise Problem(403, "A page of another site may not send this.")
        if scope["path"].startswith(OTLP):
            self._gate.caller(headers.get("authorization", ""), headers.get("x-api-key", ""), Role.INGEST)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]) -> None:
        too_large = Problem(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            await too_large.response(scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # Of what reading a body may raise, FastAPI hands on this alone.
                raise HTTPException(413, too_large.detail)
            return message

        await self._app(scope, counted, send)


def _secured(send: Send) -> Send:
    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            extra = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return secured


def hostname(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name always means this machine."""
    return host in LOOPBACK or host.endswith(".localhost") or (host.startswith("127.") and _numeric(host))


def _numeric(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() for part in parts)


def _same(origin: str, host: str) -> bool:
    return urlsplit(origin).netloc.lower() == host.lower()
