"""Scores: a list of them, their means, and the way in for people's feedback and other systems' scores."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from evals.estimates import summarize_sums
from evals.scores import DIMENSIONS, score_table
from service.api.answers import Answer
from service.api.parameters import Page, Text, Window, filters_of, interval_of, once, paged, position, shown_window
from service.api.problems import Problem
from service.auth import Caller, Gate, Role
from service.context import Context
from store.batch import Batch
from store.identity import score_id
from store.reads import Reads
from store.scope import EVERYTHING, Scope, Selection

BACK_SECONDS = 86400.0
MAX_SCORES = 1000
MAX_BUCKETS = 1500
# The two forms of a body; the first is also the member that tells them apart.
MANY, ONE = "scores", "score"
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Long = Annotated[str, StringConstraints(max_length=4000)]


class ScoreFilters(Page):
    """Which scores, by what they are about and what found them."""

    tenant: Text | None = None
    model: Text | None = None
    service: Text | None = None
    operation: Text | None = None
    evaluator: Text | None = None
    version: Text | None = None
    status: Text | None = Field(None, description="`scored`, `not_applicable` or `failed`")
    label: Text | None = None
    source: Text | None = Field(None, description="`online`, `offline`, `human` or `api`")
    error_type: Text | None = None
    prompt_name: Text | None = None
    prompt_version: Text | None = None
    deployment: Text | None = None
    environment: Text | None = None
    region: Text | None = None
    session_id: Text | None = None
    trace_id: Text | None = None
    span_id: Text | None = None
    run_id: Text | None = None


class SummaryFilters(Window):
    """Which scores to average: those of subjects since `from` (a day ago, if not said)."""

    group_by: Text = Field("evaluator", description="Dimensions, separated by commas")
    interval: Text | None = Field(None, description="A mean for each interval, such as `5m`")
    tenant: Text | None = None
    model: Text | None = None
    service: Text | None = None
    operation: Text | None = None
    evaluator: Text | None = None
    version: Text | None = None
    source: Text | None = None
    label: Text | None = None
    prompt_name: Text | None = None
    prompt_version: Text | None = None
    deployment: Text | None = None
    environment: Text | None = None
    region: Text | None = None
    session_id: Text | None = None
    run_id: Text | None = None


class NewScore(BaseModel):
    """A person's or another system's score of a request, a trace or a session.

    `key` is the sender's own: the same key again is the same score, and stored once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Name
    evaluator: Name
    version: Name = "1"
    value: float | None = Field(None, allow_inf_nan=False)
    label: Name | None = None
    explanation: Long | None = None
    source: Literal["human", "api"] = "human"
    trace_id: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{32}$")] | None = None
    span_id: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{16}$")] | None = None
    session_id: Name | None = None
    tenant: Name | None = None
    time: AwareDatetime | None = None

    @model_validator(mode="after")
    def _complete(self) -> "NewScore":
        if self.value is None and self.label is None:
            raise ValueError("a score has a value, a label, or both")
        if (self.trace_id is None) == (self.session_id is None):
            raise ValueError("say what is scored: trace_id (with span_id for one request of it), or session_id")
        if self.span_id is not None and self.trace_id is None:
            raise ValueError("span_id needs its trace_id")
        return self

    def subject(self) -> tuple[str, str]:
        """Type and id of what is scored."""
        if self.trace_id is None:
            return "session", str(self.session_id)
        if self.span_id is None:
            return "trace", self.trace_id
        return "span", f"{self.trace_id}:{self.span_id}"


class NewScores(BaseModel):
    """Several scores at once, stored together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: Annotated[list[NewScore], Field(min_length=1, max_length=MAX_SCORES)]


def _form(body: Any) -> str:
    return MANY if isinstance(body, NewScores) or (isinstance(body, dict) and MANY in body) else ONE


NewBody = Annotated[Annotated[NewScores, Tag(MANY)] | Annotated[NewScore, Tag(ONE)], Discriminator(_form)]


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["scores"], dependencies=[Depends(once)])
    read = Depends(gate.dependency(Role.READ))
    ingest = Depends(gate.dependency(Role.INGEST))

    @routes.get("/scores")
    def scores(caller: Annotated[Caller, read], chosen: Annotated[ScoreFilters, Query()]) -> Response:
        """Scores, the newest subject first, a page at a time."""
        place = position(chosen, context.clock.now(), float, str)
        selection = Selection(filters_of(chosen), *place.window)
        rows = context.reads.scores(caller.scope, selection, limit=chosen.limit + 1, after=place.after)
        shown, cursor = paged(chosen, place, rows, lambda row: (row["page_key"], row["score_id"]))
        for row in shown:
            del row["page_key"]
        return Answer({"scores": shown, "next_cursor": cursor})

    @routes.get("/scores/summary")
    def summary(caller: Annotated[Caller, read], chosen: Annotated[SummaryFilters, Query()]) -> Response:
        """Means with n, a 95 % confidence interval and the estimator that made them."""
        start, end = chosen.range(context.clock.now(), BACK_SECONDS)
        interval = interval_of("interval", chosen.interval)
        if interval is not None and ((end or context.clock.now()) - (start or 0.0)) / interval > MAX_BUCKETS:
            raise Problem(400, f"interval: more than {MAX_BUCKETS} intervals between from and to; take a longer one")
        groups = [name.strip() for name in chosen.group_by.split(",") if name.strip()]
        selection = Selection(filters_of(chosen, "group_by", "interval"), start, end)
        rows = means(context, caller.scope, selection, groups, interval)
        return Answer({**shown_window(start, end), "interval_seconds": interval, "group_by": groups, "summary": rows})

    @routes.post("/scores")
    async def add(caller: Annotated[Caller, ingest], body: NewBody) -> Response:
        """Stores feedback or external scores and answers after the commit; a known key stores nothing new."""
        new = body.scores if isinstance(body, NewScores) else [body]
        now = context.clock.now()
        rows = await asyncio.to_thread(lambda: [row_of(context.reads, caller.scope, score, now) for score in new])
        committed = await asyncio.wrap_future(context.writer.submit(Batch({"scores": score_table(rows)})))
        return Answer(
            {
                "stored": committed.rows.get("scores", 0),
                "duplicates": committed.duplicates.get("scores", 0),
                "score_ids": [row["score_id"] for row in rows],
            }
        )

    return routes


def means(
    context: Context, scope: Scope, selection: Selection, group_by: Sequence[str], interval: float | None = None
) -> list[dict[str, Any]]:
    """One row a group and interval: `mean`, `n`, `ci_low`, `ci_high`, `estimator`; always by evaluator, too."""
    by = list(dict.fromkeys(["evaluator", *group_by]))
    sums = context.reads.score_sums(scope, selection, by, interval)
    if interval is not None:
        by.append("bucket")
    found = summarize_sums(sums, by)
    columns = {name: found.column(name).to_pylist() for name in found.column_names if name != "bucket"}
    if interval is not None:
        # Thousands of rows are of a few hundred intervals: each time is made once.
        starts = found.column("bucket").combine_chunks().dictionary_encode()
        times = starts.dictionary.to_pylist()
        columns["interval_start"] = [times[index] for index in starts.indices.to_pylist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def row_of(reads: Reads, scope: Scope, score: NewScore, now: float) -> dict[str, Any]:
    """The score's row, with its subject's dimensions where the subject is known.  Raises Problem."""
    subject_type, subject_id = score.subject()
    known = _subject(reads, scope, score)
    tenant = _tenant(scope, score, known)
    when = score.time or known.get("end_time") or datetime.fromtimestamp(now, UTC)
    # Two tenants may number their feedback alike.
    source_key = score.key if tenant is None else f"{tenant}/{score.key}"
    return {
        "score_id": score_id(subject_type, subject_id, score.evaluator, score.version, score.source, source_key),
        "subject_type": subject_type,
        "subject_id": subject_id,
        "trace_id": score.trace_id,
        "span_id": score.span_id or known.get("span_id"),
        "evaluator": score.evaluator,
        "version": score.version,
        "value": score.value,
        "label": score.label,
        "explanation": score.explanation,
        "status": "scored",
        "attempts": 1,
        "source": score.source,
        "source_key": score.key,
        "subject_time": when,
        "scored_at": datetime.fromtimestamp(now, UTC),
        "request_model": known.get("request_model"),
        **{name: known.get(name) for name in DIMENSIONS},
        "session_id": score.session_id or known.get("session_id"),
        "tenant": tenant,
    }


def _subject(reads: Reads, scope: Scope, score: NewScore) -> Mapping[str, Any]:
    """The request that is scored; empty if it is not there yet, as feedback may be quicker than an exporter."""
    if score.trace_id is None:
        return {}
    rows = reads.subject(scope, score.trace_id, score.span_id)
    if rows:
        return rows[0]
    if scope != EVERYTHING and reads.subject(EVERYTHING, score.trace_id, None):
        raise Problem(404, f"There is no trace {score.trace_id}.")
    return {}


def _tenant(scope: Scope, score: NewScore, known: Mapping[str, Any]) -> str | None:
    said = score.tenant or known.get("tenant")
    if known.get("tenant") and score.tenant not in (None, known["tenant"]):
        raise Problem(422, f"tenant: the trace is not of tenant {score.tenant!r}.")
    if scope.tenants is None or said in scope.tenants:
        return said
    if said is not None:
        raise Problem(403, f"The key is not for tenant {said!r}.")
    if len(scope.tenants) == 1:
        return next(iter(scope.tenants))
    raise Problem(422, f"tenant: the key is for {len(scope.tenants)} tenants; say which one.")
