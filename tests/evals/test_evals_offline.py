"""Scoring files."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evals import registry
from evals.offline import BadDataset, OfflineReport, run_dataset
from store.batch import conform

REQUESTS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "evals" / "requests.json").read_text()
)
ITEMS = [
    {
        "id": "a",
        "input": "How do I reset my PIN?",
        "output": "I'm sorry, but I can't help with that.",
        "tenant": "bank",
    },
    {"id": "b", "input": "Where is my parcel?", "output": "It arrives on Monday.", "tenant": "retail"},
    {"id": "c", "input": "Extract it.", "output": '{"a": 1}', "response_format": "json_object"},
]
EVALUATORS = [registry.configure(kind) for kind in ("refusal", "json_validity", "judge")]


async def run(path: Path) -> OfflineReport:
    return await run_dataset(path, EVALUATORS, now=1_777_636_800.0)


def written(folder: Path, form: str) -> Path:
    path = folder / f"items.{form}"
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(item) for item in ITEMS) + "\n\n")
    elif form == "csv":
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, ["id", "input", "output", "tenant", "response_format"])
            rows.writeheader()
            rows.writerows(ITEMS)
    else:
        columns = {key: [item.get(key) for item in ITEMS] for key in (*ITEMS[0], "response_format")}
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
async def test_a_file_is_scored_in_each_form(tmp_path: Path, form: str) -> None:
    report = await run(written(tmp_path, form))
    rows = report.scores.to_pylist()
    values = {(row["subject_id"], row["evaluator"]): row["value"] for row in rows if row["status"] == "scored"}
    assert values == {
        ("a", "refusal"): 1.0,
        ("b", "refusal"): 0.0,
        ("c", "refusal"): 0.0,
        ("c", "json_validity"): 1.0,
    }
    assert {(row["source"], row["subject_type"], row["run_id"]) for row in rows} == {("offline", "item", report.run_id)}
    assert (report.items, report.counts["failed"]) == (3, 3), "the judge is not configured"


async def test_the_report_estimates_each_evaluator(tmp_path: Path) -> None:
    report = await run(written(tmp_path, "jsonl"))
    found = {row["evaluator"]: (row["mean"], row["n"]) for row in report.summary}
    assert found == {"refusal": (pytest.approx(1 / 3), 3), "json_validity": (1.0, 1)}


async def test_the_same_run_again_has_the_same_scores(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl")
    first, second = await run(path), await run(path)
    assert first.scores.column("score_id") == second.scores.column("score_id")
    path.write_text(path.read_text() + json.dumps(ITEMS[0]))
    assert (await run(path)).run_id != first.run_id


async def test_an_export_of_requests_is_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in REQUESTS))
    report = await run(path)
    assert (report.items, report.scores.num_rows) == (48, 144)
    assert conform("scores", report.scores).num_rows == 144


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"", "'.txt' is none of .jsonl"),
        ("x.jsonl", b'{"output": "a"}\n{"output"', "line 2: not JSON"),
        ("x.jsonl", b"[1]", "line 1: list, not an object"),
        ("x.jsonl", b"\xff\xfe", "line 1: not JSON"),
        ("x.jsonl", b'{"answer": "a"}', "item 1: has neither 'output' nor 'output_messages'"),
        ("x.csv", b"answer\na\n", "item 1: has neither"),
        ("x.csv", b"output\n\xff\n", "invalid start byte"),
        ("x.parquet", b"PAR0", "x.parquet"),
    ],
    ids=["ending", "cut", "array", "binary", "no output", "csv column", "csv bytes", "parquet"],
)
async def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadDataset, match=message):
        await run(path)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"gone\.jsonl: there is no such file"):
        await run(tmp_path / "gone.jsonl")
