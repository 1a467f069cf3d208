"""OTLP over gRPC: the Export methods of the trace, logs and metrics services."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from collector.otlp.http import success
from collector.otlp.outcome import ExportOutcome, Outcome, Signal
from collector.otlp.parse import PROTOBUF
from collector.otlp.receiver import OtlpReceiver

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
    Outcome.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.ERROR: grpc.StatusCode.INTERNAL,
    Outcome.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class AddressInUseError(Exception):
    """Somebody else listens on the address, or it is none of this machine's."""


class GrpcServer:
    """The gRPC listener; `start` and `stop` may be called twice, and `stop` before `start`."""

    def __init__(
        self, receiver: OtlpReceiver, address: str, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> None:
        self._receiver = receiver
        self._address = address
        self._interceptors = tuple(interceptors)
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; `port` is the port then.  Raises AddressInUseError."""
        if self._server is not None:
            return
        limit = self._receiver.settings.max_request_bytes
        server = grpc.aio.server(
            interceptors=self._interceptors,
            options=[
                ("grpc.max_receive_message_length", limit),
                # Two processes on one port would each see half of the spans.
                ("grpc.so_reuseport", 0),
            ],
        )
        server.add_generic_rpc_handlers([_handler(self._receiver, signal, name) for signal, name in SERVICES.items()])
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


def _handler(receiver: OtlpReceiver, signal: Signal, service: str) -> grpc.GenericRpcHandler:
    # Bytes in and out: the receiver parses, so that a malformed message is told and counted as over HTTP.
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_export(receiver, signal))
    return grpc.method_handlers_generic_handler(service, {"Export": method})


def _export(
    receiver: OtlpReceiver, signal: Signal
) -> Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]:
    async def export(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        outcome = await receiver.receive(body, PROTOBUF, None, TRANSPORT, signal)
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
