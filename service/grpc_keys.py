"""Keys on the gRPC listener: the same gate as HTTP's."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from service.api.problems import Problem
from service.auth import Gate, Role

# The stubs know type parameters that the class does not take when it runs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

CODES = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through only with a key of role `ingest`, once there are keys."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The call's own handler, or one that refuses it."""
        metadata = {str(key): str(value) for key, value in handler_call_details.invocation_metadata or ()}
        key = metadata.get("x-api-key") or metadata.get("api_key") or metadata.get("api-key") or ""
        try:
            self._gate.caller(metadata.get("authorization", ""), key, Role.INGEST)
        except Problem as problem:
            return _refusal(CODES.get(problem.status, grpc.StatusCode.UNAVAILABLE), problem.detail)
        return await continuation(handler_call_details)


def _refusal(code: grpc.StatusCode, detail: str) -> "Handler":
    async def refuse(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        await context.abort(code, detail)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(refuse)
