"""What becomes of an export request, for every transport."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended; the label of the metric, and what transports translate to their status codes."""

    ACCEPTED = "accepted"
    PARTIAL = "partial"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    INCOMPLETE = "incomplete"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    ERROR = "error"


class Signal(StrEnum):
    """OTLP's signals that we answer."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """The answer to an export request.

    `rejected` counts spans, log records or metric points; `message` says why, or what is wrong with the request.
    `retry_after` is in seconds, where trying again may help.
    """

    outcome: Outcome
    message: str = ""
    signal: Signal = Signal.TRACES
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    retry_after: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the sender must not send it again."""
        return self.outcome in (Outcome.ACCEPTED, Outcome.PARTIAL)
