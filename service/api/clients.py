"""What SDKs ask besides OTLP, so that changing the host is all it takes: Langfuse's, Logfire's and Traceloop's REST.

Scores are taken.  What cannot be is answered so that the SDK goes on: files (media, images) are not kept.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response
from pydantic import ValidationError

from collector.otlp.http import sender_of
from collector.otlp.outcome import Signal
from collector.otlp.sender import Sender
from evals.scores import score_table
from service.api.answers import Answer
from service.api.problems import Problem, from_validation
from service.api.scores import MAX_SCORES, NewScore, row_of
from service.auth import Caller, Gate, Role
from service.context import Context
from store.batch import Batch

PROJECT = "tidegauge"
# Where Traceloop's SDK sends images that nobody keeps; their size is not asked, since they are not read.
UNKEPT = "/v2/unkept-images/"
NOT_KEPT = "not kept: file"
LANGFUSE_NUMERIC = frozenset({"NUMERIC", "BOOLEAN"})


def router(context: Context, gate: Gate) -> APIRouter:
    """The routes; all take a key of role `ingest` once there are keys."""
    routes = APIRouter(tags=["clients"], include_in_schema=False)
    ingest = Depends(gate.dependency(Role.INGEST))

    @routes.get("/api/public/projects")
    def projects(caller: Annotated[Caller, ingest]) -> Response:
        """Langfuse's `auth_check()`."""
        organization = {"id": PROJECT, "name": PROJECT}
        return Answer({"data": [{"id": PROJECT, "name": PROJECT, "organization": organization, "metadata": {}}]})

    @routes.get("/api/public/health")
    def health() -> Response:
        """Langfuse's health probe."""
        return Answer({"status": "OK", "version": context.version})

    @routes.post("/api/public/scores")
    async def scores(caller: Annotated[Caller, ingest], body: Annotated[Any, Body()]) -> Response:
        """Langfuse's scores: a list of them, or one."""
        if isinstance(body, Mapping):
            faults = await _store(context, caller, [body])
            if faults:
                raise Problem(400, faults[0])
            return Answer({"id": body.get("id")})
        faults = await _store(context, caller, _items(body))
        if not faults:
            return Answer({"message": "Accepted"}, 202)
        errors = [{"message": fault} for fault in faults.values()]
        return Answer({"accepted": len(body) - len(faults), "rejected": len(faults), "errors": errors}, 207)

    @routes.post("/api/public/ingestion")
    async def ingestion(caller: Annotated[Caller, ingest], body: Annotated[dict[str, Any], Body()]) -> Response:
        """Langfuse's older batches, of which scores alone are taken: the rest comes over OTLP."""
        events = _items(body.get("batch"))
        places = [index for index, event in enumerate(events) if event.get("type") == "score-create"]
        found = [events[index].get("body") for index in places]
        faults = await _store(context, caller, [item if isinstance(item, Mapping) else {} for item in found])
        wrong = {places[index]: fault for index, fault in faults.items()}
        for index, event in enumerate(events):
            if event.get("type") != "score-create":
                wrong[index] = f"{str(event.get('type'))[:40]!r} is not taken here; send traces over OTLP"
        return Answer(
            {
                "successes": [{"id": _id(item), "status": 201} for i, item in enumerate(events) if i not in wrong],
                "errors": [{"id": _id(events[i]), "status": 400, "message": wrong[i]} for i in sorted(wrong)],
            },
            207,
        )

    @routes.post("/api/public/media")
    async def media(
        request: Request, caller: Annotated[Caller, ingest], body: Annotated[dict[str, Any], Body()]
    ) -> Response:
        """Langfuse's files: told that they are there already, the SDK does not send them."""
        context.ledger.noted(_sender(request, caller), Signal.TRACES, {NOT_KEPT: 1})
        return Answer({"mediaId": _media_id(body.get("sha256Hash")), "uploadUrl": None})

    @routes.get("/v1/info")
    def info(caller: Annotated[Caller, ingest]) -> Response:
        """Logfire's check of its token at the start."""
        return Answer({"project_name": PROJECT, "project_url": context.public_url})

    @routes.post("/v2/traces/{trace_id}/spans/{span_id}/images")
    def image(
        request: Request,
        caller: Annotated[Caller, ingest],
        trace_id: str,
        span_id: str,
        body: Annotated[dict[str, Any], Body()],
    ) -> Response:
        """Traceloop's SDK drops all messages of a span whose image it cannot put somewhere."""
        context.ledger.noted(_sender(request, caller), Signal.TRACES, {NOT_KEPT: 1})
        return Answer({"url": f"{str(request.base_url).rstrip('/')}{UNKEPT}{trace_id}/{span_id}"})

    @routes.post(UNKEPT + "{rest:path}")
    def unkept(caller: Annotated[Caller, ingest], rest: str) -> Response:
        """Takes an image and forgets it."""
        return Answer({})

    return routes


async def _store(context: Context, caller: Caller, items: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Stores scores and waits for the commit; gives the fault of each that cannot be, by its place."""
    rows, faults = await asyncio.to_thread(_rows, context, caller, items)
    if rows:
        await asyncio.wrap_future(context.writer.submit(Batch({"scores": score_table(rows)})))
    return faults


def _rows(
    context: Context, caller: Caller, items: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    rows, faults, now = [], dict[int, str](), context.clock.now()
    for index, item in enumerate(items):
        try:
            rows.append(row_of(context.reads, caller.scope, _score(item), now))
        except ValidationError as error:
            located = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
            faults[index] = from_validation(located).detail
        except Problem as problem:
            faults[index] = problem.detail
    return rows, faults


def _score(item: Mapping[str, Any]) -> NewScore:
    """Langfuse's score as ours; raises ValidationError."""
    value, kind = item.get("value"), item.get("dataType")
    numeric = isinstance(value, int | float) and (kind is None or kind in LANGFUSE_NUMERIC)
    said = {
        "key": item.get("id"),
        "evaluator": item.get("name"),
        "value": float(value) if numeric and isinstance(value, int | float) else None,
        "label": None if numeric or value is None else str(value),
        "explanation": item.get("comment"),
        "source": "human" if item.get("source") == "ANNOTATION" else "api",
        "trace_id": item.get("traceId"),
        "span_id": item.get("observationId"),
        # A trace says its session itself.
        "session_id": None if item.get("traceId") else item.get("sessionId"),
        "time": item.get("timestamp"),
    }
    return NewScore.model_validate({name: value for name, value in said.items() if value is not None})


def _items(body: Any) -> list[Mapping[str, Any]]:
    if not isinstance(body, list) or not all(isinstance(item, Mapping) for item in body):
        raise Problem(400, "The body is no list of objects.")
    if len(body) > MAX_SCORES:
        raise Problem(413, f"There are {len(body)}; send at most {MAX_SCORES} at once.")
    return body


def _id(event: Mapping[str, Any]) -> str:
    return str(event.get("id") or "")[:200]


def _media_id(digest: Any) -> str:
    """The id that the SDK has computed, too: the start of the file's digest, as base64url."""
    try:
        raw = base64.b64decode(str(digest), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(400, "sha256Hash is not base64.") from None
    return base64.urlsafe_b64encode(raw).decode()[:22]


def _sender(request: Request, caller: Caller) -> Sender:
    sender = sender_of(request.scope, request.headers.get("user-agent", ""))
    return Sender(sender.transport, path=sender.path, key=caller.key_id(), tenants=caller.scope.tenants)
