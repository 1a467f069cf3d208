"""Where in time a trace lies, so that looking one up reads minutes of a table instead of all of it.

Trace ids are random: no zone map helps, and an index over them would cost every insert and much memory.  So beside a
table lies a small one of hashes and times, in long runs sorted by the hash, whose row groups tell by their bounds
whether a hash may be in them, and another of fresh ones that are to become the next run.  They follow the table at a
distance: what was committed after their cursor is looked for in the table's newest row groups.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from store.positions import move, position
from store.scope import Selection

EPOCH = datetime.fromtimestamp(0, UTC)
# A run of so many covers some sixteen row groups, of which a lookup reads one.
RUN = 2_000_000
# Rows of the source that are gone through at once.
MOST = 500_000
# SQL and its parameters.
Condition = tuple[str, dict[str, str | datetime]]


@dataclass(frozen=True)
class Places:
    """The places of one table's traces: `name` is the small table's and the cursor's, `time` the large one's column."""

    name: str
    source: str
    time: str

    @property
    def fresh(self) -> str:
        """The table of places that are in no run yet."""
        return f"{self.name}_fresh"


SPAN_PLACES = Places("span_places", "spans", "start_time")
SCORE_PLACES = Places("score_places", "scores", "subject_time")


@dataclass(frozen=True)
class Range:
    """Times from the first to the last, both included; None is no bound."""

    first: datetime | None
    last: datetime | None


def of_trace(connection: duckdb.DuckDBPyConnection, places: Places, trace_id: str) -> Condition:
    """A condition for the rows of a trace; it keeps to the times at which there are any."""
    found = find(connection, places, trace_id)
    if found is None:
        return "false", {}
    if found.first is None or found.last is None:
        return "trace_id = $trace", {"trace": trace_id}
    return (
        f"trace_id = $trace AND {places.time} >= $place_first AND {places.time} <= $place_last",
        {"trace": trace_id, "place_first": found.first, "place_last": found.last},
    )


def of_filtered_trace(connection: duckdb.DuckDBPyConnection, places: Places, selection: Selection) -> Condition:
    """The same where a selection is of one trace; else no condition."""
    trace_id = selection.filters.get("trace_id")
    return ("true", {}) if trace_id is None else of_trace(connection, places, trace_id)


def find(connection: duckdb.DuckDBPyConnection, places: Places, *trace_ids: str) -> Range | None:
    """The times between which all rows of some traces lie; None if there are none.

    Another trace with the same hash only makes the range longer, so rows are to be asked for by id, too.
    """
    # One hash is compared with the bounds of each row group.
    one = len(trace_ids) == 1
    hashed = "= md5_number_lower($traces[1])" if one else "IN (SELECT md5_number_lower(unnest($traces)))"
    named = "= $traces[1]" if one else "IN (SELECT unnest($traces))"
    (row,) = connection.execute(
        f"""
        SELECT epoch_us(min(first_time)), epoch_us(max(last_time)), count(*), count(last_time) FROM (
            SELECT first_time, last_time FROM {places.name} WHERE trace_hash {hashed}
            UNION ALL
            SELECT first_time, last_time FROM {places.fresh} WHERE trace_hash {hashed}
            UNION ALL
            SELECT {places.time}, {places.time} FROM {places.source} WHERE commit_seq > $after AND trace_id {named}
        )
        """,
        {"traces": list(trace_ids), "after": position(connection, places.name)},
    ).fetchall()
    first, last, found, timed = row
    if not found:
        return None
    # A row without a time is nowhere in particular.
    if timed < found:
        return Range(None, None)
    return Range(EPOCH + timedelta(microseconds=first), EPOCH + timedelta(microseconds=last))


def extend(connection: duckdb.DuckDBPyConnection, places: Places, run: int = RUN) -> int:
    """Takes what was committed since the last time to the fresh places, and these, once they are many, to a run.

    Gives the rows of the source that it went through.
    """
    after = position(connection, places.name)
    rows, through = connection.execute(
        f"SELECT count(*), max(commit_seq) FROM"
        f" (SELECT commit_seq FROM {places.source} WHERE commit_seq > $after ORDER BY commit_seq LIMIT {MOST})",
        {"after": after},
    ).fetchall()[0]
    if not rows:
        return 0
    connection.begin()
    try:
        connection.execute(
            f"INSERT INTO {places.fresh} SELECT md5_number_lower(trace_id), min({places.time}),"
            # Null where one is not known, so that a lookup does not rely on the others.
            f" CASE WHEN count(*) = count({places.time}) THEN max({places.time}) END"
            f" FROM {places.source} WHERE commit_seq > $after AND commit_seq <= $through AND trace_id IS NOT NULL"
            " GROUP BY md5_number_lower(trace_id)",
            {"after": after, "through": through},
        )
        move(connection, places.name, through)
        if connection.execute(f"SELECT count(*) FROM {places.fresh}").fetchall()[0][0] >= run:
            connection.execute(f"INSERT INTO {places.name} SELECT * FROM {places.fresh} ORDER BY trace_hash")
            connection.execute(f"DELETE FROM {places.fresh}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return int(rows)
