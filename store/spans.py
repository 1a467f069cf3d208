"""What happens to spans on their way in: doubles are dropped, and calls find their request."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa

from store.duplicates import DuplicateWindow
from store.feed import Statement
from store.fills import write_fills
from store.fingerprints import Fingerprints, Words
from store.pairing import UPDATE_COLUMNS, UPDATES, Pairing
from store.scope import moment
from store.settings import StoreSettings

RESTORED = ("trace_id", "span_id", "kind", "response_id", "commit_seq", "committed_at")
RESTORED_ROWS = 100_000


class SpanIntake:
    """Knows the span ids and calls of a bounded window; rebuilt from the store at the start."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: StoreSettings, now: float) -> None:
        self._connection = connection
        # Made anew at every start: nobody can find ids that collide.
        fingerprints = Fingerprints(os.urandom(16))
        self.duplicates = DuplicateWindow(fingerprints, settings.duplicate_window_spans)
        self.pairing = Pairing(connection, fingerprints, settings)
        self._stored: Words | None = None
        self._update = Statement(connection, "update_requests", UPDATES, _update)
        self._restore(settings, now)

    @property
    def nbytes(self) -> int:
        """Memory of what is known."""
        return self.duplicates.nbytes + self.pairing.nbytes

    @contextmanager
    def transaction(self, seq: int, now: float) -> Iterator[None]:
        """Remembers what was taken in once the block ends; if it raises, a retry is no double."""
        self._stored = None
        try:
            yield
        except BaseException:
            self.pairing.rolled_back()
            raise
        if self._stored is not None:
            self.duplicates.add(self._stored, seq, now)
        self.pairing.committed(seq, now)

    def fresh(self, parts: Sequence[pa.Table], seq: int) -> list[pa.Table]:
        """Each of `parts` without the spans that are stored, or stand before them in the same commit `seq`."""
        together = pa.concat_tables(parts).combine_chunks()
        keep, prints = self.duplicates.fresh(self._connection, together, seq)
        self._stored = prints[keep]
        if keep.all():
            return list(parts)
        ends = np.cumsum([part.num_rows for part in parts])
        return [part.filter(pa.array(kept)) for part, kept in zip(parts, np.split(keep, ends[:-1]), strict=True)]

    def decide(self, spans: pa.Table, seq: int, now: float) -> pa.Table:
        """`spans` with their request columns; changes earlier spans in the open transaction."""
        filled, updates, first = self.pairing.decide(spans, seq, now)
        if updates.num_rows:
            self._update.run(updates, first)
        return filled

    def write_fills(self) -> None:
        """What requests' rows take over from other spans; call it once the rows of `decide` are inserted."""
        write_fills(self._connection, self.pairing.fills())

    def _restore(self, settings: StoreSettings, now: float) -> None:
        since = now - settings.request_window_seconds
        rows = self._connection.sql(
            # Row groups lie in the order of their commits, nearly; so do these rows.
            f"SELECT {', '.join(RESTORED)}, coalesce(committed_at > $since, false) AS recent FROM spans"
            " WHERE commit_seq > $after",
            params={"after": self._before(settings.duplicate_window_spans), "since": moment(since)},
        )
        for batch in rows.to_arrow_reader(RESTORED_ROWS):
            self._remember(pa.Table.from_batches([batch]), now)

    def _before(self, most: int) -> int:
        """The last commit of which nothing need be known for a window of `most` spans."""
        ((seq,),) = self._connection.execute(
            "SELECT max(commit_seq) FROM (SELECT commit_seq, sum(count(*)) OVER (ORDER BY commit_seq DESC) AS rows"
            " FROM spans GROUP BY commit_seq) WHERE rows >= $most",
            {"most": most},
        ).fetchall()
        return -1 if seq is None else int(seq) - 1

    def _remember(self, spans: pa.Table, now: float) -> None:
        self.duplicates.remember(spans, spans["commit_seq"].to_numpy(), now)
        recent = spans.filter(spans["recent"])
        if recent.num_rows:
            newest = recent["committed_at"].cast(pa.int64()).to_numpy().max()
            self.pairing.remember(recent, recent["commit_seq"].to_numpy(), float(newest) / 1e6)


def _update(rows: str) -> str:
    return (
        f"UPDATE spans SET {', '.join(f'{name} = u.{name}' for name in UPDATE_COLUMNS)} FROM {rows} u"
        # Of older row groups only the bounds are looked at.
        " WHERE spans.commit_seq >= $1::BIGINT AND spans.trace_id = u.trace_id AND spans.span_id = u.span_id"
    )
