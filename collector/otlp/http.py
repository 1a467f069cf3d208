"""OTLP over HTTP: `POST /v1/traces`, `/v1/logs` and `/v1/metrics` in protobuf and JSON."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import ClientDisconnect

from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import ENCODINGS, JSON, PROTOBUF, UnsupportedBodyError, media_type
from collector.otlp.paths import PATHS, route_of
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from store.writer import StoreOverloaded

TRANSPORT = "http"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Where in the ASGI scope the application puts who sends; absent where nobody asked.
SENDER = "tidegauge.sender"

# HTTP status and the gRPC code that goes into the body's google.rpc.Status.
STATUS: Mapping[Outcome, tuple[int, int]] = {
    Outcome.ACCEPTED: (200, 0),
    Outcome.PARTIAL: (200, 0),
    Outcome.MALFORMED: (400, 3),
    Outcome.TIMEOUT: (408, 4),
    Outcome.TOO_LARGE: (413, 3),
    Outcome.UNSUPPORTED: (415, 3),
    Outcome.INCOMPLETE: (400, 3),
    Outcome.OVERLOADED: (429, 8),
    Outcome.ERROR: (500, 13),
    Outcome.UNAVAILABLE: (503, 14),
}


def router(receiver: OtlpReceiver, dependencies: Sequence[Any] = ()) -> APIRouter:
    """Routes for all three signals; `dependencies` are FastAPI's, for who may send."""
    routes = APIRouter(dependencies=list(dependencies), tags=["otlp"])
    for path, signal in PATHS.items():
        # Every method, so that a wrong one is answered in OTLP's own form.
        routes.add_api_route(
            path,
            _endpoint(receiver, signal),
            methods=METHODS,
            response_class=Response,
            include_in_schema=False,
        )
    return routes


def sender_of(scope: Mapping[str, Any], client: str) -> Sender:
    """Who sends, before anybody asked for a key; `client` is the User-Agent header."""
    path = scope["path"]
    return Sender(TRANSPORT, route_of(path), path, client=client)


def _endpoint(receiver: OtlpReceiver, signal: Signal) -> Callable[[Request], Awaitable[Response]]:
    async def export(request: Request) -> Response:
        content_type = request.headers.get("content-type")
        sender = request.scope.get(SENDER) or sender_of(request.scope, request.headers.get("user-agent", ""))
        form = _form(content_type)
        if request.method != "POST":
            message = f"{request.method} is not served here; send POST"
            receiver.ledger.refused(sender, Outcome.UNSUPPORTED, message, signal.value)
            return _failure(405, 12, message, form, {"Allow": "POST"})
        try:
            body = await _body(request, receiver)
        except ClientDisconnect:
            receiver.ledger.refused(sender, Outcome.INCOMPLETE, "the sender went away", signal.value)
            return Response(status_code=400)
        if isinstance(body, ExportOutcome):
            receiver.ledger.refused(sender, body.outcome, body.message, signal.value)
            # The rest of the body is still on its way: nothing more can be read from this connection.
            return _answer(body, form, {"Connection": "close"})
        encoding = request.headers.get("content-encoding")
        outcome = await receiver.receive(body, content_type, encoding, sender, signal)
        return _answer(outcome, form, {})

    return export


async def _body(request: Request, receiver: OtlpReceiver) -> bytes | ExportOutcome:
    """The body, read up to the limits of size and time."""
    limit = receiver.settings.max_request_bytes
    too_large = ExportOutcome(Outcome.TOO_LARGE, f"the request has more than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        return too_large
    body = bytearray()
    seconds = receiver.settings.body_timeout_seconds
    try:
        with receiver.space() as space:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    space.take(len(chunk))
                    body += chunk
                    if len(body) > limit:
                        return too_large
    except StoreOverloaded as error:
        return receiver.retry(ExportOutcome(Outcome.OVERLOADED, f"overloaded: {error}; try again"))
    except TimeoutError:
        return ExportOutcome(Outcome.TIMEOUT, f"the body did not end within {seconds:g} s")
    return bytes(body)


def _form(content_type: str | None) -> str:
    """The media type of the answer: the request's, or JSON where that is none we know."""
    try:
        return media_type(content_type)
    except UnsupportedBodyError:
        return JSON


def _answer(outcome: ExportOutcome, form: str, headers: Mapping[str, str]) -> Response:
    if outcome.accepted:
        return _response(200, success(outcome), form, headers)
    status, code = STATUS[outcome.outcome]
    more = dict(headers)
    if outcome.retry_after is not None:
        more["Retry-After"] = str(math.ceil(outcome.retry_after))
    if outcome.outcome is Outcome.UNSUPPORTED:
        more["Accept"] = f"{PROTOBUF}, {JSON}"
        more["Accept-Encoding"] = ", ".join(ENCODINGS)
    return _failure(status, code, outcome.message, form, more)


def _failure(status: int, code: int, message: str, form: str, headers: Mapping[str, str]) -> Response:
    return _response(status, Status(code=code, message=message), form, headers)


def _response(status: int, message: Message, form: str, headers: Mapping[str, str]) -> Response:
    content = message.SerializeToString() if form == PROTOBUF else MessageToJson(message, indent=None).encode()
    return Response(content, status_code=status, media_type=form, headers=dict(headers))


def success(outcome: ExportOutcome) -> Message:
    """The signal's response message; partial success only where there is something to say."""
    if outcome.signal is Signal.LOGS:
        logs = ExportLogsServiceResponse()
        if outcome.message:
            logs.partial_success.rejected_log_records = outcome.rejected
            logs.partial_success.error_message = outcome.message
        return logs
    if outcome.signal is Signal.METRICS:
        metrics = ExportMetricsServiceResponse()
        if outcome.message:
            metrics.partial_success.rejected_data_points = outcome.rejected
            metrics.partial_success.error_message = outcome.message
        return metrics
    traces = ExportTraceServiceResponse()
    if outcome.message:
        traces.partial_success.rejected_spans = outcome.rejected
        traces.partial_success.error_message = outcome.message
    return traces
