"""One-off comparisons of files and tables."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest

from evals.drift.compare import UnusableFile, compare_tables, read_file, signal_table
from evals.drift.settings import SignalSettings

SIGNAL = SignalSettings(name="refusal", column="scores.refusal", by=("tenant", "prompt_version"))


def answers(rng: np.random.Generator, version: str, share: float) -> pa.Table:
    tenant = rng.choice(["bank", "retail"], 600)
    value = (rng.random(600) < np.where(tenant == "bank", share, 0.2)).astype(float)
    return pa.table(
        {"refusal": value, "tenant": tenant, "prompt_name": ["support"] * 600, "prompt_version": [version] * 600}
    )


def written(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_two_files_are_compared_over_all_rows_and_by_slice(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(1)
    paths = [
        written(answers(rng, version, share), tmp_path / f"{version}{ending}")
        for version, share in (("1", 0.2), ("2", 0.7))
    ]
    tables = [signal_table(read_file(path), SIGNAL) for path in paths]
    compared = {row.slice: row for row in compare_tables(SIGNAL, *tables, rng=np.random.default_rng(0))}
    assert {name: row.drift for name, row in compared.items()} == {
        "all": True,
        "tenant=bank": True,
        "tenant=retail": False,
    }
    bank = compared["tenant=bank"].as_dict()
    assert bank["effect_low"] < 0.5 < bank["effect_high"]
    assert bank["evidence"]["distributions"]["current"]["n"] == bank["n_current"]


def test_two_tables_of_one_kind_differ_no_more_often_than_the_level() -> None:
    rng, repetitions = np.random.default_rng(2), 60
    differ = 0
    for _ in range(repetitions):
        tables = [signal_table(answers(rng, "1", 0.2), SIGNAL) for _ in range(2)]
        differ += any(row.drift for row in compare_tables(SIGNAL, *tables, rng=rng))
    assert differ / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_a_direction_that_was_not_asked_for_is_no_drift() -> None:
    rng = np.random.default_rng(3)
    tables = [signal_table(answers(rng, "1", share), SIGNAL) for share in (0.7, 0.2)]
    up, down = (SIGNAL.model_copy(update={"direction": direction}) for direction in ("up", "down"))
    assert not any(row.drift for row in compare_tables(up, *tables, rng=rng))
    assert any(row.drift for row in compare_tables(down, *tables, rng=rng))


def test_an_empty_table_compares_to_nothing() -> None:
    table = signal_table(answers(np.random.default_rng(4), "1", 0.2), SIGNAL)
    assert compare_tables(SIGNAL, table, table.slice(0, 0), rng=np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", "the ending is none of .parquet"),
        ("a.parquet", "no parquet", "a.parquet: "),
        ("missing.csv", None, "missing.csv: "),
    ],
    ids=["ending", "content", "missing"],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UnusableFile, match=message):
        read_file(tmp_path / name)


def test_a_file_without_the_signal_says_what_it_has() -> None:
    with pytest.raises(UnusableFile, match=r"no column value, refusal, scores.refusal; there are other"):
        signal_table(pa.table({"other": [1.0]}), SIGNAL)
