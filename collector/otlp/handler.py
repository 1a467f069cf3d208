"""What the receiver asks of each signal: bytes in, an answer or a commit to wait for out."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from collector.otlp.outcome import ExportOutcome
from collector.otlp.sender import Sender
from store.batch import Batch, Committed

Submit = Callable[[Batch], "Future[Committed]"]
# May change a request before it is decoded: the replay moves its times.
Transform = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request that is acknowledged when `future` has its commit; `answer` says with what."""

    future: "Future[Committed]"
    answer: Callable[[Committed], ExportOutcome]


class Handler(Protocol):
    """Takes the requests of one signal."""

    def handle(self, body: bytes, media: str, sender: Sender) -> ExportOutcome | Submitted:
        """Reads a decompressed body of this media type, in a decoding thread, and counts what becomes of each item.

        What a sender's key is not for must not be stored.

        Raises MalformedBodyError, and StoreOverloaded or StoreUnavailable if it cannot be stored now.
        """
