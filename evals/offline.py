"""Scores a file of samples: the same evaluators, without a service."""

import asyncio
import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evals.estimates import summarize
from evals.evaluator import NOT_APPLICABLE, Deferred, Sample, Score, Status, applies, checked, evaluate, failed
from evals.registry import Configured
from evals.samples import clean, sample
from evals.scores import DIMENSIONS, result, score_table
from store.identity import score_id

BATCH = 500
CONTENT = {"output", "output_messages", "input_messages"}
LINE_LIMIT = 16 << 20
csv.field_size_limit(LINE_LIMIT)


class BadDataset(ValueError):
    """The file cannot be read as samples; the message says where and why."""


@dataclass(frozen=True)
class OfflineReport:
    """What a run found: rows for the table `scores`, counts by status, and an estimate for each evaluator."""

    run_id: str
    items: int
    scores: pa.Table
    counts: Mapping[str, int]
    summary: Sequence[Mapping[str, Any]]


async def run_dataset(path: Path, evaluators: Sequence[Configured], *, now: float, run_id: str = "") -> OfflineReport:
    """Scores every item of a `.jsonl`, `.csv` or `.parquet` file.

    An item has `output`, and where known `input`, `system`, `id` (else its number), `response_format`,
    `response_schema`, `expected`, `finish_reason` and dimensions (`tenant`, `prompt_version`, ...); or it has the
    columns of the table `spans`, as an export has.  The run's id is a digest of file and evaluators unless given, so
    that the same run again stores nothing twice.  Raises BadDataset.
    """
    run_id = run_id or _run_id(path, evaluators)
    rows: list[dict[str, Any]] = []
    items = 0
    for batch in _batches(read_items(path)):
        scores = await _scores(batch, evaluators)
        for index, (item, of_item) in enumerate(zip(batch, scores, strict=True), start=items):
            subject = str(item.get("id") or index)
            pairs = zip(evaluators, of_item, strict=True)
            rows += [_row(item, subject, evaluator, score, run_id, now) for evaluator, score in pairs]
        items += len(batch)
    scores_table = score_table(rows)
    counts = {str(status): sum(row["status"] == status for row in rows) for status in Status}
    return OfflineReport(run_id, items, scores_table, counts, summarize(scores_table, ["evaluator"]).to_pylist())


def read_items(path: Path) -> Iterator[dict[str, Any]]:
    """The file's items, one at a time."""
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadDataset(f"{path.name}: '{path.suffix}' is none of {', '.join(readers)}")
    if not path.is_file():
        raise BadDataset(f"{path.name}: there is no such file")
    for number, item in enumerate(reader(path), start=1):
        if not CONTENT & item.keys():
            raise BadDataset(f"{path.name}, item {number}: has neither 'output' nor 'output_messages'")
        yield item


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_LIMIT):
            number += 1
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadDataset(f"{path.name}, line {number}: not JSON: {error}") from None
            if not isinstance(item, dict):
                raise BadDataset(f"{path.name}, line {number}: {type(item).__name__}, not an object")
            yield item


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                # An empty cell says nothing, but an empty answer is one.
                yield {key: value if key == "output" else value or None for key, value in row.items() if key}
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadDataset(f"{path.name}: {error}") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise BadDataset(f"{path.name}: {error}") from None


def _batches(items: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _sample(item: Mapping[str, Any]) -> Sample:
    if "output" not in item:
        return sample({key: _as_text(value) for key, value in item.items()})
    output = item["output"]
    known = {
        name: _as_text(item.get(name)) for name in ("response_format", "response_schema", "finish_reason", "status")
    }
    described = {
        name: _as_text(item.get(name)) for name in ("tenant", "service", "model", "prompt_version", "expected")
    }
    return Sample(
        output_text=clean(_as_text(output) or ""),
        answered=output is not None,
        input_text=clean(_as_text(item.get("input")) or ""),
        system_text=clean(_as_text(item.get("system")) or ""),
        **known,
        **described,
    )


def _as_text(value: Any) -> Any:
    """JSON inside JSON may be written either way; numbers stay."""
    return json.dumps(value) if isinstance(value, dict | list) else value


async def _scores(batch: Sequence[Mapping[str, Any]], evaluators: Sequence[Configured]) -> list[list[Score]]:
    """A score an item and evaluator; those that have to be awaited all at once, within the judge's own bounds."""
    samples = [_sample(item) for item in batch]

    async def column(evaluator: Configured) -> list[Score]:
        if evaluator.asks:
            return await asyncio.gather(*(_ask(evaluator, found) for found in samples))
        return await asyncio.to_thread(lambda: [evaluate(evaluator, found) for found in samples])

    columns = [await column(evaluator) for evaluator in evaluators]
    return [list(scores) for scores in zip(*columns, strict=True)]


async def _ask(evaluator: Configured, found: Sample) -> Score:
    if not applies(evaluator, found):
        return NOT_APPLICABLE
    try:
        return checked(evaluator, await evaluator.ask(found))
    except Deferred as deferred:
        return failed("budget_exhausted", str(deferred), attempts=0)
    except Exception as error:
        return failed(type(error).__name__)


def _row(
    item: Mapping[str, Any], subject: str, evaluator: Configured, score: Score, run_id: str, now: float
) -> dict[str, Any]:
    return {
        "score_id": score_id("item", subject, evaluator.name, evaluator.version, "offline", "", run_id),
        "subject_type": "item",
        "subject_id": subject,
        "source": "offline",
        "run_id": run_id,
        "sampling_probability": 1.0,
        "request_model": item.get("model") or item.get("response_model") or item.get("request_model"),
        **{name: item.get(name) for name in DIMENSIONS},
        **result(evaluator, score, now),
    }


def _run_id(path: Path, evaluators: Sequence[Configured]) -> str:
    if not path.is_file():
        raise BadDataset(f"{path.name}: there is no such file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for evaluator in evaluators:
        digest.update(f"\0{evaluator.name}\0{evaluator.version}".encode())
    return digest.hexdigest()[:16]
