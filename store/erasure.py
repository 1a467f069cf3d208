"""Removes a person: every row that a user id leads to, in every table, and what other rows say of them."""

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import duckdb

from store.database import Database
from store.score_sums import forget_sums

ATTEMPTS = 5
# Tables whose rows belong to a trace as a whole or to one span of it.
BY_TRACE = ("log_records", "span_contents", "scores")
# Texts that name traces: evidence of drift, snapshots of incidents.
NAMING = (("drift_results", "result_id", "evidence"), ("incidents", "incident_id", "context"))
TRACE_ID = re.compile(r"\b[0-9a-f]{32}\b")
ERASED = "erased"


@dataclass(frozen=True)
class Erased:
    """Rows removed by table, and rows in which the person's traces were made unreadable."""

    removed: dict[str, int]
    changed: dict[str, int]


def erase(database: Database, user: str, at: datetime, actor: str) -> Erased:
    """Removes the user with this (hashed) id, in one transaction, and writes that to the audit log.

    A trace is removed as a whole, but for spans that name another user and what belongs to these.  Raises duckdb.Error
    if the writer was in the way each time.
    """
    connection = database.cursor()
    try:
        for attempt in range(ATTEMPTS):
            try:
                erased = _erase(connection, user, at, actor)
                break
            except duckdb.TransactionException:  # somebody changed one of the rows
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * (attempt + 1))
        if database.fold_at():
            with suppress(duckdb.TransactionException):
                connection.execute("CHECKPOINT")
        return erased
    finally:
        with suppress(duckdb.Error):
            connection.close()


def _erase(connection: duckdb.DuckDBPyConnection, user: str, at: datetime, actor: str) -> Erased:
    connection.begin()
    try:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE gone AS SELECT trace_id, span_id FROM spans WHERE trace_id IN"
            " (SELECT trace_id FROM spans WHERE user_id = $user) AND (user_id IS NULL OR user_id = $user)",
            {"user": user},
        )
        # A trace that another user shares stays for that user: of it only the spans above go.
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE gone_traces AS SELECT DISTINCT trace_id FROM gone"
            " WHERE trace_id NOT IN (SELECT trace_id FROM spans WHERE user_id IS NOT NULL AND user_id <> $user)",
            {"user": user},
        )
        removed = {table: _belonging(connection, table) for table in BY_TRACE}
        removed["spans"] = _count(
            connection, "DELETE FROM spans WHERE (trace_id, span_id) IN (SELECT (trace_id, span_id) FROM gone)"
        )
        changed = {table: _unname(connection, table, key, column) for table, key, column in NAMING}
        details = json.dumps({"removed": removed, "changed": changed})
        connection.execute(
            "INSERT INTO audit_log (time, actor, action, object, outcome, details)"
            " VALUES (?, ?, 'erase', ?, 'done', ?)",
            [at, actor, f"user:{user}", details],
        )
        connection.execute("DROP TABLE gone")
        connection.execute("DROP TABLE gone_traces")
        connection.commit()
    except BaseException:
        with suppress(duckdb.Error):
            connection.rollback()
        raise
    return Erased(removed, changed)


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _belonging(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    theirs = "trace_id IN (FROM gone_traces) OR (trace_id, span_id) IN (SELECT (trace_id, span_id) FROM gone)"
    if table == "scores":
        forget_sums(connection, theirs, [])
    return _count(connection, f"DELETE FROM {table} WHERE {theirs}")


def _unname(connection: duckdb.DuckDBPyConnection, table: str, key: str, column: str) -> int:
    """Takes the ids of removed traces out of texts; gives the rows changed."""
    gone = {trace for (trace,) in connection.execute("SELECT DISTINCT trace_id FROM gone").fetchall()}
    changed = 0
    for value, text in connection.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall():
        cleaned = TRACE_ID.sub(lambda match: ERASED if match[0] in gone else match[0], text)
        if cleaned != text:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [cleaned, value])
            changed += 1
    return changed
