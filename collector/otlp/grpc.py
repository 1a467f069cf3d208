"""OTLP over gRPC: the Export methods of the trace, logs and metrics services."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from collector.otlp.http import success
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import PROTOBUF
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import OTHER, Sender

TRANSPORT = "grpc"
SERVICES: Mapping[Signal, str] = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
CODES: Mapping[Outcome, grpc.StatusCode] = {
    Outcome.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    # RESOURCE_EXHAUSTED would invite to try again, but only together with RetryInfo.
    Outcome.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.UNSUPPORTED: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.INCOMPLETE: grpc.StatusCode.CANCELLED,
    Outcome.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.ERROR: grpc.StatusCode.INTERNAL,
    Outcome.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


ROUTES: Mapping[Signal, str] = {signal: f"{name.rpartition('.')[2]}/Export" for signal, name in SERVICES.items()}
METHODS: Mapping[str, Signal] = {f"/{name}/Export": signal for signal, name in SERVICES.items()}
# Of one connection, calls at a time; the others wait with their sender.
MAX_STREAMS = 128
MAX_CONNECTIONS = 1000
IDLE_MS = 15 * 60 * 1000

# The stubs know type parameters that the classes do not take when they run.
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class AddressInUseError(Exception):
    """Somebody else listens on the address, or it is none of this machine's."""


class RefusedError(Exception):
    """The call's metadata does not let it in; the message says why."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


Admit = Callable[[Sender, Mapping[str, str]], Sender]


def everybody(sender: Sender, metadata: Mapping[str, str]) -> Sender:
    """Asks for no key."""
    return sender


class GrpcServer:
    """The gRPC listener; `start` and `stop` may be called twice, and `stop` before `start`.

    `admit` is given who calls and the call's metadata; it completes the sender, or raises RefusedError.
    """

    def __init__(self, receiver: OtlpReceiver, address: str, admit: Admit = everybody) -> None:
        self._receiver = receiver
        self._address = address
        self._admit = admit
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; `port` is the port then.  Raises AddressInUseError."""
        if self._server is not None:
            return
        settings = self._receiver.settings
        server = grpc.aio.server(
            interceptors=[_Watch(self._receiver)],
            options=[
                # What is a little too large comes as far as the receiver, which says so in its own words.
                ("grpc.max_receive_message_length", max(settings.max_body_bytes, 2 * settings.max_request_bytes)),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                # Two processes on one port would each see half of the spans.
                ("grpc.so_reuseport", 0),
            ],
        )
        server.add_generic_rpc_handlers([_Methods(self._receiver, self._admit)])
        try:
            port = server.add_insecure_port(self._address)
        except RuntimeError:
            port = 0
        if not port:
            await server.stop(None)
            raise AddressInUseError(f"{self._address} cannot be listened on: it is taken, or not of this machine")
        await server.start()
        self._server, self.port = server, port

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Takes no more requests, and waits for those that run."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_seconds)


class _Call:
    """One call, from its metadata on; `entered` once its message is whole."""

    def __init__(self, sender: Sender, signal: Signal | None) -> None:
        self.sender = sender
        self.signal = signal
        self.entered = False


_CALL: contextvars.ContextVar[_Call] = contextvars.ContextVar("call")


class _Watch(grpc.aio.ServerInterceptor):
    """Sees every call before its message: gRPC's core refuses messages past its limit without a word to anybody."""

    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Method | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Method | None":
        """The call's own handler; notices when the call ends without it."""
        method = handler_call_details.method
        signal = METHODS.get(method)
        metadata = _metadata(handler_call_details)
        sender = Sender(TRANSPORT, ROUTES[signal] if signal else OTHER, method, client=metadata.get("user-agent", ""))
        call = _Call(sender, signal)
        _CALL.set(call)
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self._ended(call))
        return await continuation(handler_call_details)

    def _ended(self, call: _Call) -> None:
        if call.entered:
            return
        ledger = self._receiver.ledger
        if call.signal is None:
            ledger.refused(call.sender, Outcome.NOT_FOUND, f"there is no method {call.sender.path}")
            return
        limit = self._receiver.settings.max_request_bytes
        message = f"the message did not come whole: it has much more than {limit} bytes, or its sender gave up"
        ledger.refused(call.sender, Outcome.INCOMPLETE, message, call.signal.value)


class _Methods(grpc.GenericRpcHandler):
    """The Export methods of all signals."""

    def __init__(self, receiver: OtlpReceiver, admit: Admit) -> None:
        # Bytes in and out: the receiver parses, so that a malformed message is told and counted as over HTTP.
        self._methods: dict[str, Method] = {
            method: grpc.unary_unary_rpc_method_handler(_export(receiver, admit, signal))
            for method, signal in METHODS.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Method | None":
        """None answers UNIMPLEMENTED."""
        return self._methods.get(handler_call_details.method)


def _metadata(holder: Any) -> dict[str, str]:
    return {str(key): value for key, value in holder.invocation_metadata or () if isinstance(value, str)}


def _export(receiver: OtlpReceiver, admit: Admit, signal: Signal) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def export(body: bytes, context: Context) -> bytes:
        call = _CALL.get()
        call.entered = True
        metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            sender = admit(call.sender, metadata)
        except RefusedError as error:
            receiver.ledger.refused(call.sender, Outcome.UNAUTHORIZED, str(error), signal.value)
            await context.abort(error.code, str(error))
        outcome = await receiver.receive(body, PROTOBUF, None, sender, signal)
        if outcome.accepted:
            answer: bytes = success(outcome).SerializeToString()
            return answer
        code = CODES[outcome.outcome]
        context.set_trailing_metadata((("grpc-status-details-bin", _details(outcome, code)),))
        await context.abort(code, outcome.message)
        raise AssertionError("abort raises")

    return export


def _details(outcome: ExportOutcome, code: grpc.StatusCode) -> bytes:
    status = Status(code=code.value[0], message=outcome.message)
    if outcome.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(outcome.retry_after * 1000))
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status.details.append(detail)
    details: bytes = status.SerializeToString()
    return details
