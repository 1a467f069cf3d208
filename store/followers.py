"""What follows the tables at a distance, so that reads need not go through all of them: places and sums."""

from contextlib import suppress
from time import perf_counter

import duckdb

from store.database import Database
from store.places import RUN, SCORE_PLACES, SPAN_PLACES, extend
from store.score_sums import extend_cells

# A long history is gone through a bit at a time, so that ingest keeps most of the processor.
STEP_SECONDS = 2.0


class Followers:
    """Brings them up to date; one thread at a time."""

    def __init__(self, database: Database, run: int = RUN) -> None:
        self._database = database
        self._run = run

    def step(self) -> None:
        """Goes on from where they are, for a bounded time.  Raises duckdb.Error."""
        self.follow(STEP_SECONDS)

    def follow(self, seconds: float) -> int:
        """The same, for so long at most; gives the rows gone through, 0 where there is nothing to do."""
        connection = self._database.cursor()
        try:
            return self._follow(connection, perf_counter() + seconds)
        finally:
            with suppress(duckdb.Error):
                connection.close()

    def _follow(self, connection: duckdb.DuckDBPyConnection, until: float) -> int:
        done, rows = 0, 1
        while rows and perf_counter() < until:
            rows = sum(extend(connection, places, self._run) for places in (SPAN_PLACES, SCORE_PLACES))
            rows += extend_cells(connection)
            done += rows
        return done
