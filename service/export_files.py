"""An export's batches as a file: Parquet, CSV, JSON Lines, or Arrow IPC."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from service.api.answers import plain

Write = Callable[[pa.RecordBatch], object]


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, out: Path, form: str) -> int:
    """Writes `out`, at once or not at all; gives the rows.  `form` is one of FORMS."""
    rows = 0
    temporary = out.with_name(out.name + ".part")
    try:
        with ExitStack() as closing:
            put = FORMS[form](temporary, schema, closing)
            for batch in batches:
                put(batch)
                rows += batch.num_rows
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return rows


def _parquet(path: Path, schema: pa.Schema, closing: ExitStack) -> Write:
    put: Write = closing.enter_context(pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")).write_batch
    return put


def _csv(path: Path, schema: pa.Schema, closing: ExitStack) -> Write:
    put: Write = closing.enter_context(pyarrow.csv.CSVWriter(path, schema)).write_batch
    return put


def _arrow(path: Path, schema: pa.Schema, closing: ExitStack) -> Write:
    put: Write = closing.enter_context(pa.ipc.new_file(str(path), schema)).write_batch
    return put


def _json_lines(path: Path, schema: pa.Schema, closing: ExitStack) -> Write:
    file = closing.enter_context(path.open("w", encoding="utf-8"))

    def put(batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")

    return put


FORMS: Mapping[str, Callable[[Path, pa.Schema, ExitStack], Write]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _json_lines,
    "arrow": _arrow,
}
