"""Positions of sequential readers: the last commit that each has seen."""

import duckdb


def position(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """The stored position; 0 if the reader never started."""
    rows = connection.execute("SELECT position FROM cursors WHERE name = $name", {"name": name}).fetchall()
    return int(rows[0][0]) if rows else 0


def move(connection: duckdb.DuckDBPyConnection, name: str, to: int) -> None:
    """Moves a reader in the open transaction."""
    connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", [name, to])
