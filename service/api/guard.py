"""What a request must pass before any route sees it: its Host, its origin, its size, and a key to send telemetry."""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collector.otlp.http import SENDER, sender_of
from collector.otlp.ledger import Ledger
from collector.otlp.outcome import Outcome, Signal
from collector.otlp.paths import signal_of
from service.api.clients import UNKEPT
from service.api.problems import Problem
from service.auth import Gate

MAX_BODY_BYTES = 1024 * 1024
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# How long a browser need not ask again.
PREFLIGHT_SECONDS = "7200"
REFUSED = {401: Outcome.UNAUTHORIZED, 403: Outcome.UNAUTHORIZED}
TURNED_AWAY = {**REFUSED, 404: Outcome.NOT_FOUND, 405: Outcome.NOT_FOUND}
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
    """ASGI middleware around the whole application.

    OTLP has its own bound on bodies, its own content types and its own answers; what is refused here on its way is
    written to `ledger`.  `only_otlp` says that nothing else is served, so that every other path is somebody's mistake.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        public_url: str,
        ledger: Ledger,
        cors_origins: Collection[str] = (),
        only_otlp: bool = False,
    ) -> None:
        self._app = app
        self._gate = gate
        self._host = (urlsplit(public_url).hostname or "").lower()
        self._ledger = ledger
        self._cors = frozenset(cors_origins)
        self._only_otlp = only_otlp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers with a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        signal = signal_of(scope["path"])
        if signal is not None:
            await self._otlp(scope, receive, send, headers, signal)
            return
        try:
            self._check_host(headers)
            if scope["method"] not in SAFE:
                self._check_origin(headers)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, _secured(send))
            return
        if scope["path"].startswith(UNKEPT):
            await self._app(scope, receive, _secured(send))
            return
        await self._bounded(scope, receive, self._watched(scope, _secured(send), headers), headers)

    async def _otlp(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str], signal: Signal
    ) -> None:
        """Telemetry under any of its paths, with a key to send it once there are keys."""
        sender = sender_of(scope, headers.get("user-agent", ""))
        origin = headers.get("origin")
        shared = origin if origin is not None and ("*" in self._cors or origin in self._cors) else None
        try:
            self._check_host(headers)
            if shared is None:
                self._check_origin(headers)
            elif scope["method"] == "OPTIONS":
                await _preflight(shared, headers)(scope, receive, send)
                return
            sender = self._gate.sender(sender, headers)
        except Problem as problem:
            self._ledger.refused(sender, Outcome.UNAUTHORIZED, problem.detail, signal.value)
            await problem.response(scope["path"])(scope, receive, _secured(_shared(send, shared)))
            return
        path = f"/v1/{signal.value}"
        inner = {**scope, "path": path, "raw_path": path.encode(), SENDER: sender}
        await self._app(inner, receive, _shared(send, shared))

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Raises Problem."""
        host = hostname(headers.get("host", ""))
        # A page of another site that had its name point here would come with that name (DNS rebinding).
        if self._gate.open() and is_loopback(self._host) and not (is_loopback(host) or host == self._host):
            raise Problem(403, f"This service answers to localhost, not to {host[:200]!r}.")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Raises Problem."""
        origin = headers.get("origin")
        own = origin is None or _same(origin, headers.get("host", "")) or urlsplit(origin).hostname == self._host
        if not own or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Problem(403, "A page of another site may not send this.")

    def _watched(self, scope: Scope, send: Send, headers: Mapping[str, str]) -> Send:
        """Writes to the ledger if somebody sends to a path that is none, or without a key for it."""
        turned_away = TURNED_AWAY
        if scope["method"] in SAFE:
            # Who only asks loses no data, but SDKs ask for whether their key is good before they send.
            turned_away = REFUSED if self._only_otlp else {}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and (outcome := turned_away.get(message["status"])):
                missing = f"there is no {scope['method']} of this path" if outcome is Outcome.NOT_FOUND else ""
                self._ledger.refused(sender_of(scope, headers.get("user-agent", "")), outcome, missing)
            await send(message)

        return watched

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


def _preflight(origin: str, headers: Mapping[str, str]) -> Response:
    """What a browser asks before it sends; the headers it wants to send are those of any exporter."""
    allowed = {
        **_sharing(origin),
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": headers.get("access-control-request-headers", "content-type"),
        "access-control-max-age": PREFLIGHT_SECONDS,
    }
    return Response(status_code=204, headers=allowed)


def _sharing(origin: str) -> dict[str, str]:
    return {"access-control-allow-origin": origin, "vary": "Origin", "cross-origin-resource-policy": "cross-origin"}


def _shared(send: Send, origin: str | None) -> Send:
    """Lets the page of `origin` read the answer."""
    if origin is None:
        return send
    extra = [(name.encode(), value.encode("latin-1")) for name, value in _sharing(origin).items()]

    async def shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return shared


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
