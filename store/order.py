"""Orders of lists that go on behind a row: by a time or a value, then by ids, what does not say it last.

A list by time orders by the bare column: DuckDB then reads only the row groups that the page comes from, where an
expression over it would make it read them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime.fromtimestamp(0, UTC)
# Microseconds that a datetime can hold.
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_000_000
# The key of a row without a time: an epoch before any that a time can have, and what a float holds exactly.
NEVER = -(2**62)
LOWEST = "-1.7e308"


@dataclass(frozen=True)
class Order:
    """`column` in a direction, then `ties` ascending; rows without a value are last."""

    column: str
    ties: tuple[str, ...]
    descending: bool = True
    by_time: bool = True

    @property
    def key(self) -> str:
        """SQL of what a page's cursor says of its last row, beside its ids: microseconds, or the value."""
        if self.by_time:
            return f"coalesce(epoch_us({self.column}), {NEVER})"
        return f"coalesce(CASE WHEN isfinite(({self.column})::DOUBLE) THEN ({self.column})::DOUBLE END, {LOWEST})"

    @property
    def order(self) -> str:
        """SQL of the order."""
        first = self.column if self.by_time else self.key
        return f"{first} {'DESC' if self.descending else 'ASC'} NULLS LAST, {', '.join(self.ties)}"

    def after(self, parameters: dict[str, Any], row: Sequence[Any]) -> str:
        """A condition for what comes after a row, given its key and its ids; adds to the parameters."""
        value, *ids = row
        named: Mapping[str, Any] = {f"after_{name}": item for name, item in zip(self.ties, ids, strict=True)}
        parameters.update(named)
        tie = f"({', '.join(self.ties)}) > ({', '.join(f'${name}' for name in named)})"
        beyond = "<" if self.descending else ">"
        if not self.by_time:
            parameters["after_key"] = value
            return f"({self.key} {beyond} $after_key OR ({self.key} = $after_key AND {tie}))"
        if value <= NEVER:
            return f"({self.column} IS NULL AND {tie})"
        at = "$after_key"
        parameters["after_key"] = EPOCH + timedelta(microseconds=int(min(max(value, EARLIEST), LATEST)))
        # The first part lets row groups be left out by their bounds.
        return (
            f"({self.column} {beyond}= {at} OR {self.column} IS NULL) AND ({self.column} IS NULL"
            f" OR {self.column} {beyond} {at} OR ({self.column} = {at} AND {tie}))"
        )


NEWEST_SCORES = Order("subject_time", ("score_id",))
