"""One-off comparison of two tables, files or periods: `tidegauge drift run`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.json as json
import pyarrow.parquet as parquet

from evals.drift import statistics
from evals.drift.comparison import Comparison, as_row, compare, evidence, pair, plain_pair
from evals.drift.frame import Frame, slice_label
from evals.drift.settings import SignalSettings

LEVEL = 0.05


class UnusableFile(Exception):
    """A file that cannot be compared; the text says why."""


@dataclass(frozen=True)
class Row:
    """One slice of a one-off comparison; `drift` if it stands after Benjamini-Hochberg and its effect matters."""

    slice: str
    values: dict[str, str]
    result: Comparison
    drift: bool

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        columns = {"slice": self.slice, "slice_values": self.values, "drift": self.drift}
        return {**columns, **as_row(self.result), "evidence": evidence(self.result)}


def compare_tables(
    signal: SignalSettings,
    reference: pa.Table,
    current: pa.Table,
    *,
    minimum_samples: int = 30,
    maximum_slices: int = 200,
    level: float = LEVEL,
    rng: np.random.Generator,
) -> list[Row]:
    """Compares both over all rows and by the signal's dimensions, at a false discovery rate of `level`.

    Needs a column `value` (see `signal_table`); `time`, `session_id`, `trace_id` and dimensions are used where they
    are.  Slices with fewer than `minimum_samples` in either are left out.
    """
    both = pa.concat_tables([_marked(reference, 0), _marked(current, 1)], promote_options="permissive")
    frame = Frame(both, signal)
    side, cells = frame.table.column("side").to_numpy(), frame.cells()
    found = []
    for part in frame.slices(np.arange(len(frame)), 2 * minimum_samples, maximum_slices):
        is_current = side[part.rows] == 1
        rows = part.rows[~is_current], part.rows[is_current]
        two = pair(frame, *rows, cells) or plain_pair(frame, *rows)
        result = compare(two, minimum_samples, rng) if is_current.any() and not is_current.all() else None
        if result is not None:
            found.append((dict(part.values), result))
    limit = statistics.benjamini_hochberg(np.array([result.p_value for _, result in found]), level)
    return [
        Row(slice_label(values), values, result, result.p_value <= limit and result.matters())
        for values, result in found
    ]


def signal_table(table: pa.Table, signal: SignalSettings) -> pa.Table:
    """`table` with the signal's column as `value`: named so, or as the signal, or as its column.

    Raises UnusableFile if there is none.
    """
    names = ["value", signal.name, signal.column, signal.column.partition(".")[2]]
    for name in names:
        if name in table.column_names:
            return table.drop_columns(
                ["value"] if name != "value" and "value" in table.column_names else []
            ).rename_columns(["value" if column == name else column for column in table.column_names])
    raise UnusableFile(f"no column {', '.join(dict.fromkeys(names))}; there are {', '.join(table.column_names)}")


def read_file(path: Path) -> pa.Table:
    """A Parquet, CSV or JSON-lines file, by its ending.  Raises UnusableFile."""
    readers = {
        ".parquet": parquet.read_table,
        ".csv": csv.read_csv,
        ".jsonl": json.read_json,
        ".ndjson": json.read_json,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UnusableFile(f"{path.name}: the ending is none of {', '.join(readers)}")
    try:
        return reader(str(path))
    except (pa.ArrowException, OSError) as error:
        raise UnusableFile(f"{path.name}: {error}") from error


def _marked(table: pa.Table, side: int) -> pa.Table:
    columns = {name: table.column(name) for name in _usable(table)}
    if "time" not in columns or not pa.types.is_timestamp(columns["time"].type):
        columns["time"] = pa.array(np.arange(table.num_rows), pa.timestamp("us", tz="UTC"))
    else:
        columns["time"] = pc.cast(columns["time"], pa.timestamp("us", tz=columns["time"].type.tz)).cast(
            pa.timestamp("us", tz="UTC")
        )
    for name in columns:
        if name not in ("value", "time"):
            columns[name] = pc.cast(columns[name], pa.string())
    return pa.table({**columns, "side": pa.array(np.full(table.num_rows, side, dtype=np.int64))})


def _usable(table: pa.Table) -> Iterator[str]:
    for name in table.column_names:
        kind = table.schema.field(name).type
        if name != "side" and not (pa.types.is_nested(kind) or pa.types.is_binary(kind)):
            yield name
