"""Keys on the gRPC listener: the same gate as HTTP's."""

from collections.abc import Mapping

import grpc

from collector.otlp.grpc import Admit, RefusedError
from collector.otlp.sender import Sender
from service.api.problems import Problem
from service.auth import Gate

CODES = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}


def admission(gate: Gate) -> Admit:
    """Lets a call through only with a key of role `ingest`, once there are keys."""

    def admit(sender: Sender, metadata: Mapping[str, str]) -> Sender:
        try:
            return gate.sender(sender, metadata)
        except Problem as problem:
            raise RefusedError(CODES.get(problem.status, grpc.StatusCode.UNAVAILABLE), problem.detail) from None

    return admit
