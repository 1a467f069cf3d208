"""Which scores are stored already, found without an index over their ids.

An index over random ids is touched all over by every insert: at eight million scores it alone took more memory than
the database has, and a search for a thousand ids without one took 300 ms of CPU.  But what is the same score is about
the same subject: a score of the service's own has its subject's time, and others are near where their trace's scores
are, so that a search reads a few row groups.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from store.places import SCORE_PLACES, find

# These scores' time is their subject's, and the same whenever they are computed.
OWN_SOURCES = ("online", "offline")


def known_scores(connection: duckdb.DuckDBPyConnection, scores: pa.Table) -> set[str]:
    """Ids among those of `scores` that are stored."""
    own = pc.fill_null(pc.is_in(scores["source"], pa.array(OWN_SOURCES)), False)
    return _of_own(connection, scores.filter(own)) | _of_others(connection, scores.filter(pc.invert(own)))


def _of_own(connection: duckdb.DuckDBPyConnection, scores: pa.Table) -> set[str]:
    timed = scores.filter(pc.is_valid(scores["subject_time"]))
    found = _among(connection, scores.filter(pc.is_null(scores["subject_time"])), "subject_time IS NULL")
    if timed.num_rows:
        bounds = pc.min_max(timed["subject_time"]).as_py()
        found |= _between(connection, timed, bounds["min"], bounds["max"])
    return found


def _of_others(connection: duckdb.DuckDBPyConnection, scores: pa.Table) -> set[str]:
    """Of scores whose time may differ from one sending to the next."""
    found = _among(connection, scores.filter(pc.is_null(scores["trace_id"])), "trace_id IS NULL")
    traced = scores.filter(pc.is_valid(scores["trace_id"]))
    traces = pc.unique(traced["trace_id"]).to_pylist()
    place = find(connection, SCORE_PLACES, *traces) if traces else None
    if place is None:
        return found
    if place.first is None or place.last is None:
        return found | _among(connection, traced, "true")
    return found | _between(connection, traced, place.first, place.last)


def _between(connection: duckdb.DuckDBPyConnection, scores: pa.Table, first: datetime, last: datetime) -> set[str]:
    return _among(connection, scores, "subject_time >= ? AND subject_time <= ?", [first, last])


def _among(
    connection: duckdb.DuckDBPyConnection, scores: pa.Table, condition: str, parameters: Sequence[Any] = ()
) -> set[str]:
    if not scores.num_rows:
        return set()
    rows = connection.execute(
        f"SELECT score_id FROM scores WHERE {condition} AND score_id IN (SELECT unnest(?))",
        [*parameters, scores["score_id"].to_pylist()],
    ).fetchall()
    return {score_id for (score_id,) in rows}
