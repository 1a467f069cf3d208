"""Hands scraped engine state to the store; what the store cannot take is counted, and scraping goes on."""

from concurrent.futures import Future

import pyarrow as pa

from catalog.instruments import Instruments
from store.batch import Batch, Committed
from store.writer import StoreOverloaded, StoreUnavailable, Writer


class EngineRows:
    """The scraper's sink."""

    def __init__(self, writer: Writer, metrics: Instruments) -> None:
        self._writer = writer
        self._metrics = metrics

    def __call__(self, rows: pa.Table) -> None:
        """Queues rows of `engine_state`; never raises for what the store refuses."""
        try:
            future = self._writer.submit(Batch({"engine_state": rows}))
        except StoreOverloaded:
            self._drop("overloaded", rows.num_rows)
        except StoreUnavailable:
            self._drop("unavailable", rows.num_rows)
        else:
            future.add_done_callback(lambda done: self._settled(done, rows.num_rows))

    def _settled(self, done: "Future[Committed]", rows: int) -> None:
        if done.cancelled() or done.exception() is not None:
            self._drop("unavailable", rows)

    def _drop(self, reason: str, rows: int) -> None:
        self._metrics.counters.tidegauge_engine_rows_dropped_total.labels(reason=reason).inc(rows)
