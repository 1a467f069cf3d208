"""Which request each span of a commit belongs to: at once for a call that is alone, with all its kin for any other.

Most calls are the only one of their trace that ever comes, so of what is stored no more is kept than fingerprints of
traces and responses.  When more of a trace comes, what is stored of it is read back, and `RequestResolver` decides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.answers import LATEST_SECONDS
from store.batch import with_columns
from store.fills import Fill
from store.fingerprints import Fingerprints, Words, has_repeats
from store.kin import Kin, Mask, Prints, Rows, is_true
from store.requests import (
    CALL_KINDS,
    ENGINE_COLUMNS,
    FACTS,
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
# Calls that may come without their answer, and answers without their call: they meet across traces (`answers.py`).
APART = (
    "kind = 'llm' AND vantage = 'client' AND coalesce(response_id, '') = ''"
    " AND (start_time = end_time OR response_model IS NULL AND output_tokens IS NULL)"
)
# Made once: whenever pyarrow converts a value of Python it looks for a module that is not there, for 0.3 ms.
_CALLS = pa.array(sorted(CALL_KINDS))
_LLM, _CLIENT, _EMPTY, _COLON = map(pa.scalar, ("llm", "client", "", ":"))
_NULL = pa.scalar(None, TEXT)


class Pairing:
    """Decides for each commit what its spans' rows say of their requests.  One thread's, as the writer is."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, fingerprints: Fingerprints, settings: StoreSettings
    ) -> None:
        self._connection = connection
        self._seconds = settings.request_window_seconds
        self._kin = Kin(connection, fingerprints, settings.duplicate_window_spans, self._seconds)
        self._resolver: RequestResolver | None = None
        self._new: Prints | None = None

    @property
    def nbytes(self) -> int:
        """Memory of what is known of stored spans."""
        return self._kin.nbytes

    def remember(self, spans: pa.Table, seqs: Rows, now: float) -> None:
        """Takes note of spans that are stored, each of its commit, committed at `now` at the latest."""
        self._kin.add(self._kin.prints(spans, calls_of(spans)), seqs, now)

    def decide(self, spans: pa.Table, seq: int, now: float) -> tuple[pa.Table, pa.Table, int]:
        """`spans` with their request columns, the updates due to earlier spans, and the first commit of those.

        `seq` is the commit that the spans are to get; it is `committed` or `rolled_back` afterwards.
        """
        if self._resolver is None:
            self._resolver = self._started(seq, now)
        calls = calls_of(spans)
        self._new = prints = self._kin.prints(spans, calls)
        rows = np.flatnonzero(self._entangled(spans, calls, prints, seq))
        if not rows.size:
            return _alone(spans, calls), UPDATES.empty_table(), seq
        taken = spans.take(pa.array(rows))
        self._load(self._resolver, self._relatives(taken, seq), seq, now)
        facts = taken.select(FACTS).append_column(PROMPT_KEY, _prompt_keys(taken))
        decisions = self._resolver.resolve(facts.to_pylist(), now)
        calls[rows] = False
        filled, updates = _apply(_alone(spans, calls), taken, rows, decisions)
        return filled, updates, self._kin.first_commit(updates["trace_id"], seq)

    def fills(self) -> list[Fill]:
        """What the spans of the last `decide` have requests' rows take over; given once."""
        return self._resolver.fills() if self._resolver is not None else []

    def committed(self, seq: int, now: float) -> None:
        """What was decided last is stored."""
        if self._new is not None:
            self._kin.add(self._new, np.full(self._new.traces.size, seq), now)
        self._new = None

    def rolled_back(self) -> None:
        """What was decided last is not stored; what is stored is the truth."""
        self._new = None
        self._resolver = None

    def _entangled(self, spans: pa.Table, calls: Mask, prints: Prints, seq: int) -> Mask:
        """Rows that cannot be decided alone: they have kin in the store or in this commit."""
        slow = _apart(spans, calls)
        for rows in (*self._kin.known(prints, seq), prints.asked[_repeated(prints.responses)]):
            slow[rows] = True
        if has_repeats(prints.traces):
            slow |= _shared(spans, calls, prints.traces)
            # All rows of a trace are decided together.
            slow |= np.isin(prints.traces, prints.traces[slow])
        return slow

    def _relatives(self, spans: pa.Table, seq: int) -> set[str]:
        """The traces of these spans, and of stored calls with the same responses."""
        responses = set(spans["response_id"].to_pylist()) - {None, ""}
        return {*spans["trace_id"].to_pylist(), *self._kin.traces_of(responses, seq)} - {None}

    def _load(self, resolver: RequestResolver, traces: set[str], seq: int, now: float) -> None:
        """Has the resolver know what is stored of these traces."""
        resolver.restore(self._kin.read(traces, resolver.holds, seq, now), now)
        resolver.fills()  # were written when the rows were

    def _started(self, seq: int, now: float) -> RequestResolver:
        """A resolver that knows the calls and answers that may wait for each other."""
        resolver = RequestResolver(self._seconds, HELD_TRACES)
        rows = self._connection.execute(
            f"SELECT trace_id FROM spans WHERE committed_at > $since AND is_request AND {APART}"
            f" ORDER BY commit_seq DESC LIMIT {HELD_TRACES // 10}",
            {"since": moment(now - min(self._seconds, 2 * LATEST_SECONDS))},
        ).fetchall()
        self._load(resolver, {trace for (trace,) in rows if trace is not None}, seq, now)
        return resolver


def calls_of(spans: pa.Table) -> Mask:
    """Which rows are calls of a model."""
    return np.asarray(pc.is_in(spans["kind"], _CALLS).to_numpy(), bool)


def _shared(spans: pa.Table, calls: Mask, traces: Words) -> Mask:
    """Rows of a trace with several calls, or with a call and another span that says whose session it is."""
    _, group, sizes = np.unique(traces, return_inverse=True, return_counts=True)
    several = np.bincount(group, weights=calls) > 1
    sessions = ~calls & (_is_said(spans["session_id"]) | _is_said(spans["user_id"]))
    several[group[sessions]] = True
    found: Mask = (several & (sizes > 1))[group]
    return found


def _apart(spans: pa.Table, calls: Mask) -> Mask:
    """As `APART` says it."""
    silent = pc.and_(pc.is_null(spans["response_model"]), pc.is_null(spans["output_tokens"]))
    found = pc.or_kleene(silent, pc.equal(spans["start_time"], spans["end_time"]))
    found = pc.and_kleene(found, pc.equal(spans["vantage"], _CLIENT))
    # A null is no.
    return calls & is_true(found) & ~is_true(pc.not_equal(spans["response_id"], _EMPTY))


def _repeated(fingerprints: Words) -> Mask:
    """Which come more than once."""
    if not has_repeats(fingerprints):
        return np.zeros(fingerprints.size, bool)
    _, group, sizes = np.unique(fingerprints, return_inverse=True, return_counts=True)
    found: Mask = sizes[group] > 1
    return found


def _is_said(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.is_valid().to_numpy(), bool)


def _prompt_keys(table: pa.Table) -> pa.Array:
    """The hash of the prompt where a call and its answer may come apart, which only few do; else null."""
    apart = is_true(pc.equal(table["kind"], _LLM)) & ~_is_said(table["response_id"])
    apart &= is_true(pc.equal(table["vantage"], _CLIENT))
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
