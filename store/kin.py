"""Stored spans that have to do with new ones: of the same trace or response, and those that these were paired with."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.fingerprints import Fingerprints, RecentIds, Words
from store.requests import CALL_KINDS, FACTS, MAX_SPANS_PER_TRACE, PROMPT_KEY
from store.scope import moment

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Row = Mapping[str, Any]

# More commits than this are looked for between the first and the last of them.
MAX_COMMITS = 200
# From a trace by a response to another trace, and on; calls are hardly ever paired over so many.
MAX_HOPS = 4

_PROMPT = "CASE WHEN kind = 'llm' AND response_id IS NULL AND vantage = 'client' THEN md5(input_messages) END"
_READ = ", ".join(
    [*FACTS, f"{_PROMPT} AS {PROMPT_KEY}", "request_id", "is_request", "engine_span_id", "commit_seq", "rowid AS place"]
)
_EMPTY, _NO = pa.scalar(""), pa.scalar(False)


@dataclass(frozen=True, slots=True)
class Prints:
    """Fingerprints of spans: of all rows' traces, and of calls' responses, which are those of the rows `asked`."""

    traces: Words
    responses: Words
    asked: Rows


class Kin:
    """Knows, as fingerprints, the traces and responses of the spans of a bounded window.  One thread's."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, fingerprints: Fingerprints, most: int, seconds: float
    ) -> None:
        self._connection = connection
        self._fingerprints = fingerprints
        self._seconds = seconds
        self._traces = RecentIds(most, seconds)
        self._responses = RecentIds(most, seconds)

    @property
    def nbytes(self) -> int:
        """Memory of the fingerprints."""
        return self._traces.nbytes + self._responses.nbytes

    def prints(self, spans: pa.Table, calls: Mask) -> Prints:
        """What `spans`, of which `calls` are calls, are remembered by."""
        traces = self._fingerprints.of(spans["trace_id"])
        ids = spans["response_id"]
        if ids.null_count == len(ids):
            return Prints(traces, np.empty(0, np.uint64), np.empty(0, np.int64))
        asked = np.flatnonzero(calls & is_true(pc.not_equal(ids, _EMPTY)))
        return Prints(traces, self._fingerprints.of(ids.take(pa.array(asked))), asked)

    def add(self, prints: Prints, seqs: Rows, now: float) -> None:
        """Remembers stored spans, each of its commit; committed at `now` at the latest."""
        self._traces.add(prints.traces, seqs, now, once=True)
        self._responses.add(prints.responses, seqs[prints.asked], now)

    def known(self, prints: Prints, seq: int) -> tuple[Rows, Rows]:
        """Rows whose trace may be stored, and calls whose response may be."""
        of_traces, _ = self._traces.find(prints.traces, seq)
        of_responses, _ = self._responses.find(prints.responses, seq)
        return of_traces, prints.asked[of_responses]

    def first_commit(self, traces: pa.ChunkedArray, seq: int) -> int:
        """The first commit, before `seq`, that may have stored spans of these traces."""
        prints = np.unique(self._fingerprints.of(traces))
        found, commits = self._traces.find(prints, seq)
        return int(commits.min(initial=seq)) if np.unique(found).size == prints.size else 0

    def traces_of(self, responses: set[str], seq: int) -> set[str]:
        """Traces of the stored calls with these responses."""
        _, commits = self._responses.find(self._of(responses), seq)
        if not commits.size:
            return set()
        where, parameters = _of_commits(commits)
        rows = self._connection.execute(
            f"SELECT DISTINCT trace_id FROM spans WHERE {where} AND response_id IN (SELECT unnest($ids))",
            {**parameters, "ids": list(responses)},
        ).fetchall()
        return {trace for (trace,) in rows if trace is not None}

    def read(self, traces: Iterable[str], held: Callable[[str], bool], seq: int, now: float) -> list[Row]:
        """The stored spans of these traces, and of those that their calls were paired with, as they were stored.

        Without traces that are held already, and those of which nothing was stored within the window.
        """
        rows: list[Row] = []
        done: set[str] = set()
        wanted = set(traces)
        for _ in range(MAX_HOPS):
            wanted = {trace for trace in wanted - done if not held(trace)}
            if not wanted:
                break
            rows += self._stored(wanted, seq, now)
            done |= wanted
            wanted = self._related(rows, seq)
        return sorted(rows, key=lambda row: (row["commit_seq"], row["place"]))

    def _of(self, ids: Iterable[str]) -> Words:
        return self._fingerprints.of(pa.chunked_array([pa.array(list(ids), pa.string())]))

    def _stored(self, traces: set[str], seq: int, now: float) -> list[Row]:
        _, commits = self._traces.find(self._of(traces), seq)
        if not commits.size:
            return []
        where, parameters = _of_commits(commits)
        found: list[Row] = (
            self._connection.sql(
                f"SELECT {_READ} FROM spans WHERE {where} AND trace_id IN (SELECT unnest($traces))"
                " AND start_time IS NOT NULL AND end_time IS NOT NULL"
                " QUALIFY max(committed_at) OVER (PARTITION BY trace_id) > $since"
                " AND row_number() OVER (PARTITION BY trace_id ORDER BY commit_seq DESC, rowid DESC)"
                f" <= {MAX_SPANS_PER_TRACE}",
                params={**parameters, "traces": list(traces), "since": moment(now - self._seconds)},
            )
            .to_arrow_table()
            .to_pylist()
        )
        return found

    def _related(self, rows: list[Row], seq: int) -> set[str]:
        """Traces that these rows' calls were paired with, or may have been."""
        named = {row["request_id"].rpartition(":")[0] for row in rows if row["request_id"]}
        here: dict[str, int] = {}
        for row in rows:
            if row["response_id"] and row["kind"] in CALL_KINDS:
                here[row["response_id"]] = here.get(row["response_id"], 0) + 1
        found, _ = self._responses.find(self._of(here), seq)
        # Mostly all calls with a response are of one trace, and there is nothing more to look for.
        return named | self.traces_of(set(here), seq) if found.size > sum(here.values()) else named


def is_true(column: pa.ChunkedArray) -> Mask:
    """Which rows are true; null is not."""
    return np.asarray(pc.fill_null(column, _NO).to_numpy(), bool)


def _of_commits(commits: Rows) -> tuple[str, dict[str, Any]]:
    """A condition for rows of these commits.  They lie together: other row groups are left out by their bounds."""
    commits = np.unique(commits)
    parameters: dict[str, Any] = {"first": int(commits[0]), "last": int(commits[-1])}
    if commits.size > MAX_COMMITS:
        return "commit_seq BETWEEN $first AND $last", parameters
    parameters["commits"] = commits.tolist()
    return "commit_seq BETWEEN $first AND $last AND commit_seq IN (SELECT unnest($commits))", parameters
