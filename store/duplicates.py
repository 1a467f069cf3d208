"""Which spans are stored already: an exporter whose acknowledgement was lost sends them again."""

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from store.fingerprints import Fingerprints, RecentIds, Words, has_repeats

# Of a retry the commits are few; more than this are looked for between the first and the last of them.
MAX_COMMITS = 100


class DuplicateWindow:
    """The ids of the latest `most` spans as fingerprints; what they match is looked up, so that no span is lost."""

    def __init__(self, fingerprints: Fingerprints, most: int) -> None:
        self._fingerprints = fingerprints
        self._known = RecentIds(most)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self._known.nbytes

    def fresh(
        self, connection: duckdb.DuckDBPyConnection, spans: pa.Table, seq: int
    ) -> tuple[npt.NDArray[np.bool_], Words]:
        """Whether each row is new to the store and to the rows before it, and all rows' fingerprints.

        `seq` is the commit that the rows are to get.
        """
        prints = self._fingerprints.of(spans["trace_id"], spans["span_id"])
        keep = np.ones(spans.num_rows, bool)
        self._drop_stored(connection, spans, prints, keep, seq)
        _drop_repeated(spans, prints, keep)
        return keep, prints

    def add(self, prints: Words, seq: int, now: float) -> None:
        """Remembers what the commit `seq` stored."""
        self._known.add(prints, seq, now)

    def remember(self, spans: pa.Table, seqs: npt.NDArray[np.int64], now: float) -> None:
        """The same for rows that are in the store, each of its own commit."""
        self._known.add(self._fingerprints.of(spans["trace_id"], spans["span_id"]), seqs, now)

    def _drop_stored(
        self,
        connection: duckdb.DuckDBPyConnection,
        spans: pa.Table,
        prints: Words,
        keep: npt.NDArray[np.bool_],
        seq: int,
    ) -> None:
        positions, commits = self._known.find(prints, seq)
        if not positions.size:
            return
        rows = np.unique(positions)
        suspects = _keys(spans, rows)
        stored = stored_ids(connection, {key[1] for key in suspects}, np.unique(commits))
        keep[rows[[key in stored for key in suspects]]] = False


def stored_ids(
    connection: duckdb.DuckDBPyConnection, span_ids: set[str | None], commits: npt.NDArray[np.int64]
) -> set[tuple[str | None, str | None]]:
    """Trace and span id of the stored rows that have one of the span ids and are of one of the commits."""
    # A commit's rows lie together: all other row groups are left out by their bounds.
    parameters: dict[str, object] = {"first": int(commits[0]), "last": int(commits[-1]), "ids": list(span_ids)}
    among = ""
    if commits.size <= MAX_COMMITS:
        among, parameters["commits"] = " AND commit_seq IN (SELECT unnest($commits))", commits.tolist()
    missing = " OR span_id IS NULL" if None in span_ids else ""
    rows = connection.execute(
        "SELECT trace_id, span_id FROM spans WHERE commit_seq BETWEEN $first AND $last"
        f"{among} AND (span_id IN (SELECT unnest($ids)){missing})",
        parameters,
    ).fetchall()
    return set(rows)


def _drop_repeated(spans: pa.Table, prints: Words, keep: npt.NDArray[np.bool_]) -> None:
    """Of rows with the same id the first stays."""
    if not has_repeats(prints):
        return
    order = np.argsort(prints, kind="stable")
    same = prints[order[1:]] == prints[order[:-1]]
    rows = np.sort(np.unique(np.concatenate([order[1:][same], order[:-1][same]])))
    seen: set[tuple[str | None, str | None]] = set()
    for row, key in zip(rows, _keys(spans, rows), strict=True):
        if key in seen:
            keep[row] = False
        seen.add(key)


def _keys(spans: pa.Table, rows: npt.NDArray[np.int64]) -> list[tuple[str | None, str | None]]:
    taken = spans.select(["trace_id", "span_id"]).take(pa.array(rows))
    return list(zip(taken["trace_id"].to_pylist(), taken["span_id"].to_pylist(), strict=True))
