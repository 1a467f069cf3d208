"""Remembers what cannot be read and why, so that it is not asked for at every look."""

from collections.abc import Iterable, Mapping

from collector.gpu.errors import Why

# An unexpected error may pass soon; that a card lacks something does not.
ERROR_RETRY_S = 30.0


class Availability:
    """Which sources (fields, metrics, calls) are asked now, and which values can be read."""

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._closed_until: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def asks(self, source: str, now: float) -> bool:
        """True if the source is to be asked."""
        return self._closed_until.get(source, now) <= now

    def failed(self, source: str, gives: Iterable[str], why: Why, now: float) -> None:
        """The source said no: it rests, and what it gives is missing unless another source gives it."""
        self._closed_until[source] = now + (ERROR_RETRY_S if why is Why.ERROR else self._retry_s)
        for name in gives:
            if not self._reasons.get(name):
                self._reasons[name] = why

    def settle(self, values: Iterable[str]) -> Mapping[str, str]:
        """After a look that gave `values`: "" for each value that can be read, else why not."""
        for name in values:
            self._reasons[name] = ""
        return dict(self._reasons)
