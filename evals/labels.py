"""Keeps the values of a metric's labels few, whatever arrives."""

from threading import Lock

from catalog.instruments import Instruments

OTHER = "other"
UNKNOWN = ""


class Labels:
    """Passes on the first `limit` values of each label, and folds later ones into `other`, counted."""

    def __init__(self, metrics: Instruments, limit: int = 100) -> None:
        self._metrics = metrics
        self._limit = limit
        self._known: dict[str, set[str]] = {}
        self._lock = Lock()

    def fold(self, label: str, value: str | None) -> str:
        """The value to use for `label`; empty for what is not known."""
        if value is None:
            return UNKNOWN
        with self._lock:
            known = self._known.setdefault(label, set())
            if value in known or len(known) < self._limit:
                known.add(value)
                return value
        self._metrics.counters.tidegauge_labels_folded_total.labels(label=label).inc()
        return OTHER
