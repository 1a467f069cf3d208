"""Counts requests for `/metrics` once they have settled, so that a call reported by client and engine counts once."""

from catalog.clock import Clock
from collector.request_metrics import RequestMetrics
from store.reads import Reads
from store.scope import moment


class RequestCounting:
    """Goes through the requests committed since the service started; Prometheus keeps what came before."""

    def __init__(self, reads: Reads, counters: RequestMetrics, clock: Clock, settle_seconds: float) -> None:
        self._reads = reads
        self._counters = counters
        self._clock = clock
        self._settle = settle_seconds
        self._position = int(reads.query("last_seq")[0]["seq"])

    def step(self) -> None:
        """Counts what has settled since the last step."""
        settled = moment(self._clock.now() - self._settle)
        table = self._reads.table("settled_requests", after=self._position, settled=settled)
        if table.num_rows:
            self._counters.observe(table)
            self._position = table.column("commit_seq")[-1].as_py()
