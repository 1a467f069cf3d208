"""Turns scores into rows of the table `scores`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from evals.evaluator import Described, JudgeUse, Score
from evals.samples import clean
from store.identity import score_id
from store.tables import SCORES

MAX_EXPLANATION, MAX_LABEL = 1_000, 100
DIMENSIONS = "tenant service operation session_id prompt_name prompt_version deployment environment region".split()
Row = Mapping[str, Any]


def request_subject(row: Row) -> str:
    """The subject id of a request's score."""
    return f"{row['trace_id']}:{row['span_id']}"


def online_id(row: Row, evaluator: Described) -> str:
    """The identity that the request's score by the evaluator has, or will have."""
    return score_id("span", request_subject(row), evaluator.name, evaluator.version, "online")


def online_row(
    row: Row, evaluator: Described, score: Score, probability: float, now: float, cost: float | None = None
) -> dict[str, Any]:
    """The row of a request's score."""
    return {
        "score_id": online_id(row, evaluator),
        "subject_type": "span",
        "subject_id": request_subject(row),
        "trace_id": row["trace_id"],
        "span_id": row["span_id"],
        "source": "online",
        "sampling_probability": probability,
        "subject_time": row.get("end_time"),
        "request_model": row.get("response_model") or row.get("request_model"),
        **{name: row.get(name) for name in DIMENSIONS},
        **result(evaluator, score, now, cost),
    }


def result(evaluator: Described, score: Score, now: float, cost: float | None = None) -> dict[str, Any]:
    """The columns that say what the evaluator found."""
    judge = score.judge or JudgeUse("")
    return {
        "evaluator": evaluator.name,
        "version": evaluator.version,
        "value": score.value,
        "label": _text(score.label, MAX_LABEL),
        "explanation": _text(score.explanation, MAX_EXPLANATION),
        "status": str(score.status),
        "error_type": _text(score.error_type, MAX_LABEL),
        "attempts": score.attempts,
        "judge_model": judge.model or None,
        "judge_input_tokens": judge.input_tokens if score.judge else None,
        "judge_output_tokens": judge.output_tokens if score.judge else None,
        "judge_cost_usd": cost,
        "scored_at": datetime.fromtimestamp(now, UTC),
    }


def _text(value: str | None, length: int) -> str | None:
    return None if value is None else clean(value[:length])


def score_table(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table, without what the store fills in."""
    names = [name for name in SCORES.names if name not in ("commit_seq", "committed_at")]
    return pa.Table.from_pylist(list(rows), schema=pa.schema([SCORES.field(name) for name in names]))
