"""Where in time a trace lies, so that looking one up reads minutes of a table instead of all of it.

Trace ids are random: no zone map helps, and an index over them would cost every insert and much memory.  So beside a
table lies a small one of hashes and times, in runs sorted by the hash; a run's row groups tell from their bounds that
they do not hold it.  It follows the table at a distance: what was committed after its cursor is looked for in the
table's newest row groups.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from store.positions import move, position
from store.scope import Selection

EPOCH = datetime.fromtimestamp(0, UTC)
# Below this a run would be short, and the table's tail is quick to search: 7 ms of CPU for 250,000 ids.
MIN_RUN, MAX_RUN = 200_000, 500_000


# SQL and its parameters.
Condition = tuple[str, dict[str, str | datetime]]


@dataclass(frozen=True)
class Places:
    """The places of one table's traces: `name` is the small table's and the cursor's, `time` the large one's column."""

    name: str
    source: str
    time: str


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


def find(connection: duckdb.DuckDBPyConnection, places: Places, trace_id: str) -> Range | None:
    """The times between which all rows of a trace lie; None if it has none.

    Another trace with the same hash only makes the range longer, so rows are to be asked for by id, too.
    """
    (row,) = connection.execute(
        f"""
        SELECT epoch_us(min(first_time)), epoch_us(max(last_time)), count(*), count(last_time) FROM (
            SELECT first_time, last_time FROM {places.name} WHERE trace_hash = md5_number_lower($trace::VARCHAR)
            UNION ALL
            SELECT {places.time}, {places.time} FROM {places.source} WHERE commit_seq > $after AND trace_id = $trace
        )
        """,
        {"trace": trace_id, "after": position(connection, places.name)},
    ).fetchall()
    first, last, found, timed = row
    if not found:
        return None
    # A row without a time is nowhere in particular.
    if timed < found:
        return Range(None, None)
    return Range(EPOCH + timedelta(microseconds=first), EPOCH + timedelta(microseconds=last))


def extend(connection: duckdb.DuckDBPyConnection, places: Places, least: int = MIN_RUN) -> int:
    """Adds a run of what was committed since the last one, if that is at least so much; gives the rows it covers."""
    after = position(connection, places.name)
    rows, through = connection.execute(
        f"SELECT count(*), max(commit_seq) FROM"
        f" (SELECT commit_seq FROM {places.source} WHERE commit_seq > $after ORDER BY commit_seq LIMIT {MAX_RUN})",
        {"after": after},
    ).fetchall()[0]
    if rows < least:
        return 0
    run = connection.sql(
        f"SELECT md5_number_lower(trace_id) AS trace_hash, min({places.time}) AS first_time,"
        # Null where one is not known, so that a lookup does not rely on the others.
        f" CASE WHEN count(*) = count({places.time}) THEN max({places.time}) END AS last_time"
        f" FROM {places.source} WHERE commit_seq > $after AND commit_seq <= $through AND trace_id IS NOT NULL"
        " GROUP BY trace_hash ORDER BY trace_hash",
        params={"after": after, "through": through},
    ).to_arrow_table()
    connection.begin()
    try:
        connection.register("run", run)
        connection.execute(f"INSERT INTO {places.name} SELECT * FROM run ORDER BY trace_hash")
        connection.unregister("run")
        move(connection, places.name, through)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return int(rows)
