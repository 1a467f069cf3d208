"""What a request's row takes over from other spans that say it: usage, an answer, a session.  Unsaid columns only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

import duckdb
import pyarrow as pa

from store.tables import TEXT, TIME


class What(StrEnum):
    """Which columns are taken over."""

    USAGE = "usage"  # another span of the same call counted the tokens
    ANSWER = "answer"  # the answer came as a span of its own
    SESSION = "session"  # a span above says whose call it is


USAGE = "input_tokens output_tokens total_tokens cached_tokens cache_creation_tokens reasoning_tokens cost_usd".split()
COLUMNS: Mapping[What, Sequence[str]] = {
    What.USAGE: USAGE,
    What.ANSWER: [*USAGE, "response_model", "finish_reason", "output_messages", "stream", "tool_definitions"],
    What.SESSION: ["session_id", "user_id"],
}
SCHEMA = pa.schema(
    [
        *((name, TEXT) for name in ("trace_id", "span_id", "giver_trace_id", "giver_span_id", "what")),
        ("start_time", TIME),
        ("giver_start_time", TIME),
    ]
)


@dataclass(frozen=True, slots=True)
class Fill:
    """The row of one span takes over what another's says."""

    trace_id: str
    span_id: str
    start_time: datetime
    giver_trace_id: str
    giver_span_id: str
    giver_start_time: datetime
    what: What


def write_fills(connection: duckdb.DuckDBPyConnection, fills: Sequence[Fill]) -> None:
    """Fills rows that are stored, or were just inserted in the open transaction."""
    if not fills:
        return
    connection.register("fills", pa.Table.from_pylist([asdict(fill) for fill in fills], schema=SCHEMA))
    try:
        for what in {fill.what for fill in fills}:
            of_kind = [fill for fill in fills if fill.what is what]
            connection.execute(
                _update(what), [min(f.start_time for f in of_kind), min(f.giver_start_time for f in of_kind)]
            )
    finally:
        connection.unregister("fills")


def _update(what: What) -> str:
    columns = COLUMNS[what]
    taken = ", ".join(f"{name} = coalesce(spans.{name}, u.{name})" for name in columns)
    given = ", ".join(f"any_value(g.{name}) AS {name}" for name in columns)
    # Old row groups are not even looked at.
    return (
        f"UPDATE spans SET {taken} FROM (SELECT f.trace_id, f.span_id, {given} FROM fills f JOIN spans g"
        " ON g.trace_id = f.giver_trace_id AND g.span_id = f.giver_span_id"
        f" WHERE f.what = '{what}' AND g.start_time >= $2 GROUP BY f.trace_id, f.span_id) u"
        " WHERE spans.trace_id = u.trace_id AND spans.span_id = u.span_id AND spans.start_time >= $1"
    )
