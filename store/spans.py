"""What happens to spans on their way in: doubles are dropped, and calls find their request."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.fills import write_fills
from store.requests import ENGINE_COLUMNS, FACTS, PROMPT_KEY, Decision, RequestResolver
from store.settings import StoreSettings
from store.tables import SPANS

UPDATE_COLUMNS = ("request_id", "is_request", "engine_span_id", "engine_instance", *ENGINE_COLUMNS.values())

UPDATE = (
    "UPDATE spans SET "
    + ", ".join(f"{name} = u.{name}" for name in UPDATE_COLUMNS)
    + " FROM incoming u WHERE spans.trace_id = u.trace_id AND spans.span_id = u.span_id"
    # Old row groups are not even looked at.
    + " AND spans.start_time >= ?"
)

# Calls that may come without their answer, or answers without their call; as in `_prompt_keys`.
APART = "kind = 'llm' AND response_id IS NULL AND vantage = 'client'"

UPDATES = pa.schema([SPANS.field(name) for name in ("trace_id", "span_id", "start_time", *UPDATE_COLUMNS)])


class SpanIntake:
    """Knows the span ids and calls of a bounded window; rebuilt from the store at the start."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: StoreSettings, now: float) -> None:
        self._settings = settings
        self._seen: dict[str, None] = {}
        self._added: list[str] = []
        self._restore_seen(connection)
        self.resolver = self._restored_resolver(connection, now)
        self._connection = connection
        self._now = now

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Forgets what was taken in if the block raises, so that a retry is not taken for a double."""
        self._added = []
        try:
            yield
        except BaseException:
            for key in self._added:
                self._seen.pop(key, None)
            # The resolver has moved on with rows that were never stored; what is stored is the truth.
            self.resolver = self._restored_resolver(self._connection, self._now)
            raise
        for key in list(self._seen)[: max(len(self._seen) - self._settings.duplicate_window_spans, 0)]:
            del self._seen[key]

    def fresh(self, table: pa.Table) -> pa.Table:
        """`table` without the spans that were seen before, in the store or earlier in the table."""
        keys = pc.binary_join_element_wise(table.column("trace_id"), table.column("span_id"), "").to_pylist()
        keep = np.zeros(len(keys), dtype=bool)
        for index, key in enumerate(keys):
            if key not in self._seen:
                self._seen[key] = None
                self._added.append(key)
                keep[index] = True
        return table if keep.all() else table.filter(pa.array(keep))

    def decide(self, table: pa.Table, now: float) -> tuple[pa.Table, pa.Table]:
        """`table` with its request columns filled, and the updates due to spans stored before."""
        self._now = now
        facts = table.select(FACTS).append_column(PROMPT_KEY, _prompt_keys(table))
        decisions = self.resolver.resolve(facts.to_pylist(), now)
        return _apply(table, decisions)

    def write_fills(self) -> None:
        """What requests' rows take over from other spans; call it once the rows of `decide` are inserted."""
        write_fills(self._connection, self.resolver.fills())

    def _restore_seen(self, connection: duckdb.DuckDBPyConnection) -> None:
        rows = connection.execute(
            "SELECT trace_id || span_id FROM spans ORDER BY commit_seq DESC LIMIT ?",
            [self._settings.duplicate_window_spans],
        ).fetchall()
        self._seen = dict.fromkeys(key for (key,) in reversed(rows))

    def _restored_resolver(self, connection: duckdb.DuckDBPyConnection, now: float) -> RequestResolver:
        resolver = RequestResolver(self._settings.request_window_seconds)
        prompt_key = f"CASE WHEN {APART} THEN md5(input_messages) END AS {PROMPT_KEY}"
        columns = ", ".join([*FACTS, prompt_key, "request_id", "is_request", "engine_span_id"])
        rows = (
            connection.cursor()
            .sql(
                f"SELECT {columns} FROM spans WHERE committed_at > to_timestamp($since) ORDER BY commit_seq",
                params={"since": now - self._settings.request_window_seconds},
            )
            .to_arrow_table()
        )
        resolver.restore(rows.to_pylist(), now)
        resolver.fills()  # were written when the rows were
        return resolver


def _prompt_keys(table: pa.Table) -> pa.Array:
    """The hash of the prompt where a call and its answer may come apart, which only few do; else null."""
    apart = pc.and_(pc.equal(table["kind"], "llm"), pc.is_null(table["response_id"]))
    apart = pc.fill_null(pc.and_(apart, pc.equal(table["vantage"], "client")), False)
    if not pc.any(apart).as_py():
        return pa.nulls(table.num_rows, pa.string())
    prompts = zip(apart.to_pylist(), table["input_messages"].to_pylist(), strict=True)
    return pa.array([hashlib.md5(text.encode()).hexdigest() if of and text else None for of, text in prompts])


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


def _apply(table: pa.Table, decisions: Sequence[Decision]) -> tuple[pa.Table, pa.Table]:
    """Splits decisions into those on rows of `table`, which are filled in, and those on earlier rows."""
    rows = {(row["trace_id"], row["span_id"]): row for row in map(_row, decisions)}
    keys = list(zip(table.column("trace_id").to_pylist(), table.column("span_id").to_pylist(), strict=True))
    empty: dict[str, Any] = {}
    here = [rows.pop(key, empty) for key in keys]
    for name in UPDATE_COLUMNS:
        field = SPANS.field(name)
        default = False if name == "is_request" else None
        column = pa.array([row.get(name, default) for row in here], field.type)
        table = table.set_column(table.schema.get_field_index(name), field, column)
    return table, pa.Table.from_pylist(list(rows.values()), schema=UPDATES)
