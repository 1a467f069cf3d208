"""What log records say of a span goes to that span's row, whichever of the two comes first.

A record's part waits in `span_contents` until its span is stored; a span that is stored already is updated.  Two
kinds of parts: `fill` gives columns that the span itself does not say, `append` gives one item of a list (a message,
a flag), and the items of all records together, in the order of their times, are the column.  Appended parts stay
for the window after they were used, since a later export may bring the one that belongs before them.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from catalog.instruments import Instruments
from store.scope import moment
from store.settings import StoreSettings
from store.tables import LOG_RECORDS, SPAN_CONTENTS, SPANS

CONTENT = (
    "input_messages",
    "output_messages",
    "retrieved_documents",
    "feature_flags",
    "response_schema",
    "tool_definitions",
    "tool_arguments",
    "tool_result",
)
APPENDED = ("input_messages", "output_messages", "feature_flags")
_NOT_FILLED = frozenset(
    "start_time end_time duration_s trace_id span_id parent_span_id name kind vantage request_id is_request service "
    "service_version instance scope tenant status status_message attributes commit_seq committed_at".split()
)
# Columns that a part may give; those that are not CONTENT stand in its `facts`.
FILLABLE = tuple(name for name in SPANS.names if name not in _NOT_FILLED and not name.startswith("engine_"))
FILL, APPEND = "fill", "append"
WAITING, APPLIED = "waiting", "applied"
OUTCOMES = ("applied", "superseded", "unclaimed")

# No conversation has more messages; whoever sends more would have each of them cost the sum of all.
MAX_PARTS = 1_000
MAX_CHARACTERS = 4 * 1024 * 1024
# Logs without any time get that of their arrival, which is another one when they are sent again.
RETRIES = timedelta(minutes=15)
PURGE_EVERY_SECONDS = 60.0

Part = dict[str, Any]
SpanKey = tuple[str, str]


class ContentIntake:
    """Knows which parts wait for their span; rebuilt from the store at the start.  One thread's, as the writer is."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, settings: StoreSettings, metrics: Instruments, now: float
    ) -> None:
        self._connection = connection
        self._window = settings.content_window_seconds
        self._most = settings.content_waiting
        self._gauge = metrics.gauges.tidegauge_content_waiting
        self._counter = metrics.counters.tidegauge_content_events_total
        self._purge_at = now
        self._now = now
        self._waiting: dict[str, float] = {}  # key: until when
        self._taken: set[str] = set()  # record ids of this transaction
        self._admitted: set[str] = set()  # and of its last batch
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._restore(now)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Counts after the block; forgets what the block did if it raises, since nothing of it is stored."""
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._taken = set()
        try:
            yield
        except BaseException:
            self._purge_at = self._now
            self._restore(self._now)
            raise
        # The block ends with the commit.
        for outcome, count in self._outcomes.items():
            if count:
                self._counter.labels(outcome).inc(count)
        self._gauge.set(len(self._waiting))

    # --- doubles ----------------------------------------------------------------------------------------------------

    def fresh(self, name: str, table: pa.Table) -> pa.Table:
        """`table` without what was stored before; a batch's `log_records` are asked before its `span_contents`."""
        if name == "log_records":
            return self._fresh_records(table)
        ids = table.column("record_id").to_pylist()
        return table.filter(pa.array([record in self._admitted for record in ids], pa.bool_()))

    def _fresh_records(self, table: pa.Table) -> pa.Table:
        ids = table.column("record_id").to_pylist()
        if not ids:
            return table
        first, last = (pc.min_max(table.column("time"))[name].as_py() for name in ("min", "max"))
        if table.column("observed_time").null_count:
            first -= RETRIES
        rows = self._connection.execute(
            "SELECT record_id FROM log_records WHERE time BETWEEN ? AND ? AND record_id IN (SELECT unnest(?))",
            [first, last, ids],
        ).fetchall()
        known = self._taken | {record for (record,) in rows}
        keep = [record not in known and not known.add(record) for record in ids]  # type: ignore[func-returns-value]
        self._admitted = {record for record, kept in zip(ids, keep, strict=True) if kept}
        self._taken |= self._admitted
        return table.filter(pa.array(keep, pa.bool_()))

    # --- parts and spans --------------------------------------------------------------------------------------------

    def settle(self, tables: Mapping[str, pa.Table], now: float) -> dict[str, pa.Table]:
        """The tables of a commit with what records say of its spans, and of its parts those that have to be kept.

        Spans and parts stored before are changed in the open transaction.
        """
        spans, parts = self._fill(tables.get("spans"), tables.get("span_contents"), now)
        settled = dict(tables)
        if spans is not None:
            settled["spans"] = spans
        if parts is not None:
            settled["span_contents"] = parts
        return settled

    def _fill(
        self, spans: pa.Table | None, parts: pa.Table | None, now: float
    ) -> tuple[pa.Table | None, pa.Table | None]:
        self._now = now
        self._expire(now)
        new: dict[str, list[Part]] = defaultdict(list)
        for part in parts.to_pylist() if parts is not None else ():
            new[_key_of(part)].append(part)
        if not new and not self._waiting:
            return spans, parts
        here = _positions(spans, new.keys() | self._waiting.keys()) if spans is not None else {}
        keys = new.keys() | here.keys()
        if not keys:
            return spans, parts
        stored = self._stored(keys)
        targets = _targets_in(spans, here) | self._targets(new, new.keys() - here.keys())
        values: dict[SpanKey, dict[str, Any]] = defaultdict(dict)
        done: list[Part] = []
        for key in sorted(keys):
            done += self._settle(key, [*stored.get(key, ()), *new.get(key, ())], targets.get(key), values)
        self._update(targets, here, values)
        if spans is not None:
            spans = _filled(spans, {position: values[_span_key(targets[key])] for key, position in here.items()})
        self._change(done)
        kept = [part for added in new.values() for part in added if part["state"] is not None]
        return spans, None if parts is None else pa.Table.from_pylist(kept, schema=SPAN_CONTENTS)

    def _settle(
        self, key: str, parts: list[Part], target: Mapping[str, Any] | None, values: dict[SpanKey, dict[str, Any]]
    ) -> list[Part]:
        """Decides the span's columns from all its parts; gives the parts whose state changed in the store."""
        apart = [part for part in parts if target is None or _foreign(part, target)]
        for part in apart:
            part["state"] = part["state"] or WAITING
        if target is None or len(apart) == len(parts):
            self._wait(key)
            return []
        parts = [part for part in parts if not _foreign(part, target)]
        before = [(part, part["state"]) for part in parts]
        said = values[_span_key(target)]
        found = _decided(parts, target, said)
        said.update(found)
        if not apart:
            self._waiting.pop(key, None)
        for part, state in before:
            if state != APPLIED:
                self._outcomes["applied" if part["used"] else "superseded"] += 1
        return [part for part, state in before if state is not None and part["state"] != state]

    def _wait(self, key: str) -> None:
        self._waiting.setdefault(key, self._now + self._window)
        while len(self._waiting) > self._most:
            del self._waiting[next(iter(self._waiting))]
            self._outcomes["unclaimed"] += 1

    def _expire(self, now: float) -> None:
        while self._waiting:
            key, until = next(iter(self._waiting.items()))
            if until > now:
                break
            del self._waiting[key]
            self._outcomes["unclaimed"] += 1
        if now >= self._purge_at:
            self._purge_at = now + PURGE_EVERY_SECONDS
            self._connection.execute(
                "DELETE FROM span_contents WHERE state = ? AND committed_at < ?", [APPLIED, moment(now - self._window)]
            )

    # --- the store --------------------------------------------------------------------------------------------------

    def _restore(self, now: float) -> None:
        # A connection of its own: the writer's may be in a transaction that failed.
        rows = (
            self._connection.cursor()
            .execute(
                "SELECT trace_id, span_id, response_id, epoch(committed_at) FROM span_contents"
                " WHERE state = ? AND committed_at > ? ORDER BY committed_at DESC LIMIT ?",
                [WAITING, moment(now - self._window), self._most],
            )
            .fetchall()
        )
        self._waiting = {}
        for trace_id, span_id, response_id, committed_at in reversed(rows):
            self._waiting.setdefault(_key(trace_id, span_id, response_id), committed_at + self._window)

    def _stored(self, keys: Iterable[str]) -> dict[str, list[Part]]:
        rows = self._query(
            "SELECT * FROM span_contents"
            " WHERE span_id IN (SELECT unnest($ids)) OR response_id IN (SELECT unnest($ids))",
            {"ids": [_id(key) for key in keys]},
        )
        found: dict[str, list[Part]] = defaultdict(list)
        for part in rows:
            found[_key_of(part)].append(part)
        return found

    def _targets(self, new: Mapping[str, Sequence[Part]], keys: Iterable[str]) -> dict[str, Part]:
        """The stored spans of these keys: ids and tenant, and for each fillable column whether the span says it."""
        wanted = list(keys)
        if not wanted:
            return {}
        earliest = min(part["time"] for key in wanted for part in new[key])
        said = ", ".join(f"{name} IS NOT NULL AS {name}" for name in FILLABLE if name != "response_id")
        rows = self._query(
            f"SELECT trace_id, span_id, response_id, start_time, tenant, status, {said} FROM spans"
            # Old row groups are not even looked at.
            " WHERE start_time >= $since"
            " AND (span_id IN (SELECT unnest($ids)) OR response_id IN (SELECT unnest($ids)))"
            " ORDER BY coalesce(is_request, false)",
            {"since": earliest - timedelta(seconds=self._window), "ids": [_id(key) for key in wanted]},
        )
        asked = set(wanted)
        return {key: row for row in rows for key in _keys_of_span(row) if key in asked}

    def _update(
        self,
        targets: Mapping[str, Part],
        here: Mapping[str, int],
        values: Mapping[SpanKey, Mapping[str, Any]],
    ) -> None:
        stored = {_span_key(row): row for key, row in targets.items() if key not in here and values[_span_key(row)]}
        if not stored:
            return
        columns = sorted({column for key in stored for column in values[key]})
        names = ["trace_id", "span_id", *columns]
        rows = [{"trace_id": key[0], "span_id": key[1], **values[key]} for key in stored]
        incoming = pa.Table.from_pylist(rows, schema=pa.schema([SPANS.field(name) for name in names]))
        sets = ", ".join(f"{name} = coalesce(u.{name}, spans.{name})" for name in columns)
        self._with(
            incoming,
            f"UPDATE spans SET {sets} FROM parts_incoming u WHERE spans.trace_id = u.trace_id"
            " AND spans.span_id = u.span_id AND spans.start_time >= ?",
            [min(row["start_time"] for row in stored.values())],
        )

    def _change(self, done: Sequence[Part]) -> None:
        gone = [part["record_id"] for part in done if part["state"] is None]
        used = [part["record_id"] for part in done if part["state"] is not None]
        if gone:
            self._connection.execute("DELETE FROM span_contents WHERE record_id IN (SELECT unnest(?))", [gone])
        if used:
            self._connection.execute(
                "UPDATE span_contents SET state = ? WHERE record_id IN (SELECT unnest(?))", [APPLIED, used]
            )

    def _query(self, sql: str, parameters: Mapping[str, Any]) -> list[Part]:
        result = self._connection.sql(sql, params=dict(parameters))
        rows: list[Part] = result.to_arrow_table().to_pylist()
        return rows

    def _with(self, incoming: pa.Table, sql: str, parameters: Sequence[Any]) -> None:
        self._connection.register("parts_incoming", incoming)
        try:
            self._connection.execute(sql, list(parameters))
        finally:
            self._connection.unregister("parts_incoming")


def _decided(parts: Sequence[Part], target: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the span by its parts, and each part's new state: applied, or None where it need not be kept."""
    ours = {name for part in parts if part["state"] == APPLIED for name in APPENDED if part[name] is not None}
    found: dict[str, Any] = {}
    lists: dict[str, list[str]] = defaultdict(list)
    size = 0
    for number, part in enumerate(sorted(parts, key=_order)):
        facts = json.loads(part["facts"]) if part["facts"] else {}
        part["used"] = False
        for name, value in [*facts.items(), *((name, part[name]) for name in CONTENT)]:
            if value is None or (name == "error_type" and target["status"] != "error"):
                continue
            if part["mode"] == APPEND and name in APPENDED:
                size += len(value)
                if (name in ours or not target[name]) and number < MAX_PARTS and size <= MAX_CHARACTERS:
                    lists[name].append(value)
                    part["used"] = True
            elif not target[name] and name not in said and name not in found:
                found[name] = value
                part["used"] = True
        appended = part["mode"] == APPEND and any(part[name] is not None for name in APPENDED)
        part["state"] = APPLIED if appended and part["used"] else None
    return {**{name: _joined(texts) for name, texts in lists.items() if name not in said}, **found}


def _joined(texts: Sequence[str]) -> str:
    """One JSON array of the items of all."""
    return "[" + ",".join(inner for text in texts if (inner := text.strip()[1:-1])) + "]"


def _order(part: Part) -> tuple[Any, int]:
    return part["time"], part["position"]


def _foreign(part: Part, target: Mapping[str, Any]) -> bool:
    """Whether part and span are of different tenants: ids are no proof of belonging together."""
    return None not in (part["tenant"], target["tenant"]) and part["tenant"] != target["tenant"]


def _key(trace_id: str | None, span_id: str | None, response_id: str | None) -> str:
    return f"{trace_id} {span_id}" if span_id else f"response {response_id}"


def _key_of(part: Mapping[str, Any]) -> str:
    return _key(part["trace_id"], part["span_id"], part["response_id"])


def _id(key: str) -> str:
    """The span's or the response's id in a key."""
    return key.partition(" ")[2]


def _keys_of_span(row: Mapping[str, Any]) -> tuple[str, ...]:
    span = _key(row["trace_id"], row["span_id"], None)
    return (span, f"response {row['response_id']}") if row["response_id"] else (span,)


def _span_key(row: Mapping[str, Any]) -> SpanKey:
    return row["trace_id"], row["span_id"]


def _positions(spans: pa.Table, keys: Iterable[str]) -> dict[str, int]:
    """Which rows of the new spans the keys mean."""
    asked = set(keys)
    ids = (spans.column(name).to_pylist() for name in ("trace_id", "span_id", "response_id"))
    found: dict[str, int] = {}
    for position, (trace_id, span_id, response_id) in enumerate(zip(*ids, strict=True)):
        key = f"{trace_id} {span_id}"
        if key in asked:
            found[key] = position
        if response_id and f"response {response_id}" in asked:
            found.setdefault(f"response {response_id}", position)
    return found


def _targets_in(spans: pa.Table | None, here: Mapping[str, int]) -> dict[str, Part]:
    if spans is None or not here:
        return {}
    rows = spans.take(list(here.values()))
    plain = rows.select(["trace_id", "span_id", "tenant", "status"]).to_pylist()
    said = {name: rows.column(name).is_valid().to_pylist() for name in FILLABLE}
    return {
        key: {**plain[index], **{name: flags[index] for name, flags in said.items()}} for index, key in enumerate(here)
    }


def _filled(spans: pa.Table, values: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """The table with these columns of these rows set."""
    for name in sorted({name for columns in values.values() for name in columns}):
        at = sorted(position for position, columns in values.items() if name in columns)
        mask = [False] * spans.num_rows
        for position in at:
            mask[position] = True
        field = SPANS.field(name)
        replaced = pc.replace_with_mask(
            spans.column(name).combine_chunks(),
            pa.array(mask),
            pa.array([values[position][name] for position in at], field.type),
        )
        spans = spans.set_column(spans.schema.get_field_index(name), field, replaced)
    return spans


def logs_schema() -> pa.Schema:
    """What a decoder gives of `log_records`: all but the writer's columns."""
    return pa.schema([field for field in LOG_RECORDS if field.name not in ("commit_seq", "committed_at")])


def parts_schema() -> pa.Schema:
    """What a decoder gives of `span_contents`: all but the writer's columns and the state."""
    return pa.schema([field for field in SPAN_CONTENTS if field.name not in ("state", "commit_seq", "committed_at")])
