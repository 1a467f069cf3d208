"""Scores of external evaluators, as their log events bring them."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from collector.otlp.log_decode import Evaluation
from store.identity import score_id
from store.scope import DIMENSIONS
from store.tables import SCORES

SCHEMA = pa.schema([field for field in SCORES if field.name not in ("commit_seq", "committed_at")])
# Spans by their traces and by their response ids, with the dimensions of a score; the best to take comes last.
Subjects = Callable[[Sequence[str], Sequence[str]], Sequence[Mapping[str, Any]]]
MAX_NAME, MAX_EXPLANATION = 100, 4_000
Row = dict[str, Any]


def score_rows(evaluations: Sequence[Evaluation], subjects: Subjects, now: float) -> list[Row]:
    """The rows of `scores`; those that say no score, or of no known span, are left out."""
    if not evaluations:
        return []
    traces = sorted({item.trace_id for item in evaluations if item.trace_id})
    responses = sorted({response for item in evaluations if (response := _text(item.said["response_id"]))})
    by_span: dict[str, Mapping[str, Any]] = {}
    by_response: dict[str, Mapping[str, Any]] = {}
    for row in subjects(traces, responses):
        by_span[f"{row['trace_id']}:{row['span_id']}"] = row
        if row["response_id"]:
            by_response[row["response_id"]] = row
    rows: list[Row] = []
    for item in evaluations:
        # The span around the event may be the evaluator's own; the response id says what was evaluated.
        known = by_response.get(_text(item.said["response_id"]) or "") or by_span.get(f"{item.trace_id}:{item.span_id}")
        if (score := _row(item, known or {}, now)) is not None:
            rows.append(score)
    return rows


def score_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as the writer takes them."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def _row(item: Evaluation, known: Mapping[str, Any], now: float) -> Row | None:
    tenant = item.columns.get("tenant")
    if known and None not in (tenant, known["tenant"]) and tenant != known["tenant"]:
        # Ids are no proof of belonging together.
        known = {}
    trace_id, span_id = known.get("trace_id") or item.trace_id, known.get("span_id") or item.span_id
    value, label, error = _number(item.said["value"]), _text(item.said["label"]), _text(item.said["error_type"])
    if not trace_id or not span_id or (value is None and label is None and error is None):
        return None
    evaluator, version = str(item.said["evaluator"])[:MAX_NAME], _text(item.said["version"]) or "1"
    subject = f"{trace_id}:{span_id}"
    return {
        "score_id": score_id("span", subject, evaluator, version, "api", item.record_id),
        "subject_type": "span",
        "subject_id": subject,
        "trace_id": trace_id,
        "span_id": span_id,
        "evaluator": evaluator,
        "version": version,
        "value": value,
        "label": label,
        "explanation": _text(item.said["explanation"], MAX_EXPLANATION),
        "status": "failed" if value is None and label is None else "scored",
        "error_type": error,
        "attempts": 1,
        "source": "api",
        "source_key": item.record_id,
        "subject_time": known.get("end_time") or item.time,
        "scored_at": datetime.fromtimestamp(now, UTC),
        "request_model": known.get("request_model") or item.columns.get("request_model"),
        **{name: known.get(name) or item.columns.get(name) for name in DIMENSIONS},
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: Any, longest: int = MAX_NAME) -> str | None:
    return value[:longest] if isinstance(value, str) and value else None
