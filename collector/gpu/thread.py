"""A thread of one's own for calls that may hang in a driver."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThread:
    """Runs calls one after another off the event loop.

    Not `asyncio.to_thread`: the interpreter waits at exit for that pool's threads, for ever if one hangs in a driver.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def call(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Queues the call; the future resolves on the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(settle: Callable[[Any], None], outcome: object) -> None:
            if not future.done():
                settle(outcome)

        def run() -> None:
            settle: Callable[[Any], None] = future.set_result
            outcome: object
            try:
                outcome = function()
            except Exception as error:
                settle, outcome = future.set_exception, error
            # The loop may be closed already, if this took longer than the service's life.
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, settle, outcome)

        self._calls.put(run)
        if self._thread.ident is None:
            self._thread.start()
        return future

    def stop(self) -> None:
        """Ends the thread after the queued calls; does not wait for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
