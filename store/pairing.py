"""Which request each span of a commit belongs to: at once for a call that is alone, with all its kin for any other.

Most calls are the only one of their trace that ever comes, so of what is stored no more is kept than fingerprints of
traces and responses.  When more of a trace comes, what is stored of it is read back, and `RequestResolver` decides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.answers import LATEST_SECONDS
from store.batch import with_columns
from store.fills import Fill
from store.fingerprints import Fingerprints, RecentIds, Words, has_repeats
from store.requests import (
    CALL_KINDS,
    ENGINE_COLUMNS,
    FACTS,
    MAX_SPANS_PER_TRACE,
    PROMPT_KEY,
    Decision,
    RequestResolver,
)
from store.scope import moment
from store.settings import StoreSettings
from store.tables import SPANS, TEXT

UPDATE_COLUMNS = ("request_id", "is_request", "engine_span_id", "engine_instance", *ENGINE_COLUMNS.values())
UPDATES = pa.schema([SPANS.field(name) for name in ("trace_id", "span_id", "start_time", *UPDATE_COLUMNS)])

# Traces whose spans are held as objects, 3 KB each; those before them are read back when more of them comes.
HELD_TRACES = 10_000
# More commits than this are looked for between the first and the last of them.
MAX_COMMITS = 200

# Calls that may come without their answer, and answers without their call: they meet across traces (`answers.py`).
APART = (
    "kind = 'llm' AND vantage = 'client' AND coalesce(response_id, '') = ''"
    " AND (start_time = end_time OR response_model IS NULL AND output_tokens IS NULL)"
)
_PROMPT = "CASE WHEN kind = 'llm' AND response_id IS NULL AND vantage = 'client' THEN md5(input_messages) END"
_STORED = ", ".join([*FACTS, f"{_PROMPT} AS {PROMPT_KEY}", "request_id", "is_request", "engine_span_id"])

# Made once: whenever pyarrow converts a value of Python it looks for a module that is not there, for 0.3 ms.
_CALLS = pa.array(sorted(CALL_KINDS))
_LLM, _CLIENT, _EMPTY, _COLON = map(pa.scalar, ("llm", "client", "", ":"))
_NULL, _NO = pa.scalar(None, TEXT), pa.scalar(False)

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Pairing:
    """Knows the traces and responses of a bounded window.  One thread's, as the writer is."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, fingerprints: Fingerprints, settings: StoreSettings
    ) -> None:
        self._connection = connection
        self._fingerprints = fingerprints
        self._seconds = settings.request_window_seconds
        self._traces = RecentIds(settings.duplicate_window_spans, self._seconds)
        self._responses = RecentIds(settings.duplicate_window_spans, self._seconds)
        self._resolver: RequestResolver | None = None
        self._new: tuple[Words, Words] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the fingerprints."""
        return self._traces.nbytes + self._responses.nbytes

    def add(self, spans: pa.Table, seqs: Rows, now: float) -> None:
        """Remembers spans that are stored, each of its commit, committed at `now` at the latest."""
        traces, responses, asked = self._prints(spans, calls_of(spans))
        self._traces.add(traces, seqs, now)
        self._responses.add(responses, seqs[asked], now)

    def decide(self, spans: pa.Table, seq: int, now: float) -> tuple[pa.Table, pa.Table, int]:
        """`spans` with their request columns, the updates due to earlier spans, and the first commit of those.

        `seq` is the commit that the spans are to get; it is `committed` or `rolled_back` afterwards.
        """
        if self._resolver is None:
            self._resolver = self._started(seq, now)
        resolver = self._resolver
        calls = calls_of(spans)
        traces, responses, asked = self._prints(spans, calls)
        self._new = np.unique(traces) if has_repeats(traces) else traces, responses
        slow = _entangled(spans, calls, traces)
        _add_repeated(slow, responses, asked)
        self._load_kin(resolver, spans, (traces, responses, asked), slow, seq, now)
        if not slow.any():
            return _alone(spans, calls), UPDATES.empty_table(), seq
        rows = np.flatnonzero(slow)
        taken = spans.take(pa.array(rows))
        facts = taken.select(FACTS).append_column(PROMPT_KEY, _prompt_keys(taken))
        decisions = resolver.resolve(facts.to_pylist(), now)
        filled, updates = _apply(_alone(spans, calls & ~slow), taken, rows, decisions)
        return filled, updates, self._first_commit(updates, seq)

    def fills(self) -> list[Fill]:
        """What the spans of the last `decide` have requests' rows take over; given once."""
        return self._resolver.fills() if self._resolver is not None else []

    def committed(self, seq: int, now: float) -> None:
        """What was decided last is stored."""
        if self._new is not None:
            traces, responses = self._new
            self._traces.add(traces, seq, now)
            self._responses.add(responses, seq, now)
        self._new = None

    def rolled_back(self) -> None:
        """What was decided last is not stored; what is stored is the truth."""
        self._new = None
        self._resolver = None

    def _prints(self, spans: pa.Table, calls: Mask) -> tuple[Words, Words, Rows]:
        """Fingerprints of all rows' traces, of calls' responses, and the rows of the latter."""
        traces = self._fingerprints.of(spans["trace_id"])
        ids = spans["response_id"]
        if ids.null_count == len(ids):
            return traces, np.empty(0, np.uint64), np.empty(0, np.int64)
        asked = np.flatnonzero(calls & _is_true(pc.not_equal(ids, _EMPTY)))
        return traces, self._fingerprints.of(ids.take(pa.array(asked))), asked

    def _load_kin(
        self,
        resolver: RequestResolver,
        spans: pa.Table,
        prints: tuple[Words, Words, Rows],
        slow: Mask,
        seq: int,
        now: float,
    ) -> None:
        """Marks what has kin in the store, and has the resolver know those."""
        traces, responses, asked = prints
        of_traces, commits = self._traces.find(traces, seq)
        of_responses, answered = self._responses.find(responses, seq)
        slow[of_traces] = True
        slow[asked[of_responses]] = True
        # All rows of a trace are decided together.
        if not slow.any():
            return
        slow |= np.isin(traces, traces[slow])
        names = set(_at(spans["trace_id"], of_traces))
        if of_responses.size:
            said = set(_at(spans["response_id"], asked[of_responses]))
            others = sorted(self._traces_of_responses(said, answered) - names)
            _, more = self._traces.find(self._fingerprints.of(pa.chunked_array([others], TEXT)), seq)
            names |= set(others)
            commits = np.concatenate([commits, answered, more])
        self._load(resolver, {name for name in names if not resolver.holds(name)}, commits, now)

    def _first_commit(self, updates: pa.Table, seq: int) -> int:
        """The first commit that may have stored any of these spans."""
        traces = np.unique(self._fingerprints.of(updates["trace_id"]))
        found, commits = self._traces.find(traces, seq)
        return int(commits.min(initial=seq)) if np.unique(found).size == traces.size else 0

    def _traces_of_responses(self, responses: set[str], commits: Rows) -> set[str]:
        where, parameters = _of_commits(commits)
        rows = self._connection.execute(
            f"SELECT DISTINCT trace_id FROM spans WHERE {where} AND response_id IN (SELECT unnest($ids))",
            {**parameters, "ids": list(responses)},
        ).fetchall()
        return {trace for (trace,) in rows if trace is not None}

    def _load(self, resolver: RequestResolver, names: set[str], commits: Rows, now: float) -> None:
        """Has the resolver know the stored spans of these traces that were seen within the window."""
        if not names or not commits.size:
            return
        where, parameters = _of_commits(np.unique(commits))
        rows = self._connection.sql(
            f"SELECT {_STORED} FROM spans WHERE {where} AND trace_id IN (SELECT unnest($names))"
            " AND start_time IS NOT NULL AND end_time IS NOT NULL"
            " QUALIFY max(committed_at) OVER (PARTITION BY trace_id) > $since"
            " AND row_number() OVER (PARTITION BY trace_id ORDER BY commit_seq DESC, rowid DESC)"
            f" <= {MAX_SPANS_PER_TRACE} ORDER BY commit_seq, rowid",
            params={**parameters, "names": list(names), "since": moment(now - self._seconds)},
        ).to_arrow_table()
        resolver.restore(rows.to_pylist(), now)
        resolver.fills()  # were written when the rows were

    def _started(self, seq: int, now: float) -> RequestResolver:
        """A resolver that knows the calls and answers that may wait for each other."""
        resolver = RequestResolver(self._seconds, HELD_TRACES)
        rows = self._connection.execute(
            f"SELECT trace_id FROM spans WHERE committed_at > $since AND is_request AND {APART}"
            f" ORDER BY commit_seq DESC LIMIT {HELD_TRACES // 10}",
            {"since": moment(now - min(self._seconds, 2 * LATEST_SECONDS))},
        ).fetchall()
        names = sorted({trace for (trace,) in rows if trace is not None})
        _, commits = self._traces.find(self._fingerprints.of(pa.chunked_array([names], TEXT)), seq)
        self._load(resolver, set(names), commits, now)
        return resolver


def calls_of(spans: pa.Table) -> Mask:
    """Which rows are calls of a model."""
    return np.asarray(pc.is_in(spans["kind"], _CALLS).to_numpy(), bool)


def _of_commits(commits: Rows) -> tuple[str, dict[str, Any]]:
    """A condition for rows of these commits.  They lie together: other row groups are left out by their bounds."""
    parameters: dict[str, Any] = {"first": int(commits.min()), "last": int(commits.max())}
    if commits.size > MAX_COMMITS:
        return "commit_seq BETWEEN $first AND $last", parameters
    parameters["commits"] = commits.tolist()
    return "commit_seq BETWEEN $first AND $last AND commit_seq IN (SELECT unnest($commits))", parameters


def _entangled(spans: pa.Table, calls: Mask, traces: Words) -> Mask:
    """Rows that cannot be decided alone, by what this commit says.

    Those of a trace with several calls, or with a call and another span that says whose session it is; and calls that
    may have come apart from their answer.
    """
    slow = _apart(spans, calls)
    if has_repeats(traces):
        _, group, sizes = np.unique(traces, return_inverse=True, return_counts=True)
        several = np.bincount(group, weights=calls) > 1
        sessions = ~calls & (_is_said(spans["session_id"]) | _is_said(spans["user_id"]))
        several[group[sessions]] = True
        several &= sizes > 1
        slow |= several[group]
    return slow


def _apart(spans: pa.Table, calls: Mask) -> Mask:
    """As `APART` says it."""
    silent = pc.and_(pc.is_null(spans["response_model"]), pc.is_null(spans["output_tokens"]))
    found = pc.or_kleene(silent, pc.equal(spans["start_time"], spans["end_time"]))
    found = pc.and_kleene(found, pc.equal(spans["vantage"], _CLIENT))
    # A null is no.
    return calls & _is_true(found) & ~_is_true(pc.not_equal(spans["response_id"], _EMPTY))


def _add_repeated(slow: Mask, responses: Words, asked: Rows) -> None:
    """Marks calls that share a response id."""
    if has_repeats(responses):
        _, group, sizes = np.unique(responses, return_inverse=True, return_counts=True)
        slow[asked[sizes[group] > 1]] = True


def _is_true(column: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(column, _NO).to_numpy(), bool)


def _is_said(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.is_valid().to_numpy(), bool)


def _at(column: pa.ChunkedArray, rows: Rows) -> list[Any]:
    values: list[Any] = column.take(pa.array(rows, pa.int64())).to_pylist()
    return values


def _prompt_keys(table: pa.Table) -> pa.Array:
    """The hash of the prompt where a call and its answer may come apart, which only few do; else null."""
    apart = _is_true(pc.equal(table["kind"], _LLM)) & ~_is_said(table["response_id"])
    apart &= _is_true(pc.equal(table["vantage"], _CLIENT))
    if not apart.any():
        return pa.nulls(table.num_rows, TEXT)
    prompts = zip(apart, table["input_messages"].to_pylist(), strict=True)
    keys = [hashlib.md5(text.encode()).hexdigest() if of and text else None for of, text in prompts]
    return pa.array(keys, TEXT)


def _alone(spans: pa.Table, calls: Mask) -> pa.Table:
    """`spans` with each of `calls` as the only span of its request, and all others of none."""
    own = pc.binary_join_element_wise(spans["trace_id"], spans["span_id"], _COLON)
    ids = own if calls.all() else pc.if_else(pa.array(calls), own, _NULL)
    unsaid = {name: pa.nulls(spans.num_rows, SPANS.field(name).type) for name in UPDATE_COLUMNS}
    return with_columns(spans, {**unsaid, "request_id": ids, "is_request": pa.array(calls)})


def _row(decision: Decision) -> dict[str, Any]:
    engine: Mapping[str, Any] = decision.engine or {}
    return {
        "trace_id": decision.trace_id,
        "span_id": decision.span_id,
        "start_time": decision.start_time,
        "request_id": decision.request_id,
        "is_request": decision.is_request,
        "engine_span_id": engine.get("span_id"),
        "engine_instance": engine.get("instance"),
        **{ours: engine.get(native) for native, ours in ENGINE_COLUMNS.items()},
    }


def _apply(spans: pa.Table, taken: pa.Table, rows: Rows, decisions: Sequence[Decision]) -> tuple[pa.Table, pa.Table]:
    """Fills decisions on `rows` of `spans`, which are those of `taken`, and gives those on spans stored before."""
    decided = {(row["trace_id"], row["span_id"]): row for row in map(_row, decisions)}
    keys = zip(taken["trace_id"].to_pylist(), taken["span_id"].to_pylist(), strict=True)
    unsaid = {"is_request": False}
    here = [decided.pop(key, unsaid) for key in keys]
    mask = np.zeros(spans.num_rows, bool)
    mask[rows] = True
    columns = {}
    for name in UPDATE_COLUMNS:
        values = pa.array([row.get(name) for row in here], SPANS.field(name).type)
        columns[name] = pc.replace_with_mask(spans[name].combine_chunks(), pa.array(mask), values)
    return with_columns(spans, columns), pa.Table.from_pylist(list(decided.values()), schema=UPDATES)
