"""Turns rows of the view `requests` into samples; whatever stands in the messages, it does not fail."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from evals.evaluator import Sample

# What is needed of a request to score it and to describe its score.
COLUMNS = (
    "trace_id span_id start_time end_time service operation request_model response_model tenant session_id prompt_name "
    "prompt_version deployment environment region input_tokens output_tokens finish_reason status error_type "
    "response_format response_schema input_messages output_messages retrieved_documents commit_seq"
).split()

Messages = tuple[Mapping[str, Any], ...]


def samples(requests: pa.Table) -> list[Sample]:
    """One sample a row, in the rows' order."""
    return [sample(row) for row in requests.select(COLUMNS).to_pylist()]


def sample(row: Mapping[str, Any]) -> Sample:
    """The sample of one request, given as a row with COLUMNS; columns that lack are unknown."""
    inputs, outputs = messages(row.get("input_messages")), messages(row.get("output_messages"))
    answer = answer_text(outputs)
    return Sample(
        output_text=answer or "",
        answered=answer is not None,
        input_text=_last(inputs, "user"),
        system_text="\n".join(text_of(message) for message in inputs if message.get("role") in ("system", "developer")),
        input_messages=inputs,
        output_messages=outputs,
        response_format=row.get("response_format"),
        response_schema=row.get("response_schema"),
        finish_reason=row.get("finish_reason"),
        status=row.get("status"),
        error_type=row.get("error_type"),
        tenant=row.get("tenant"),
        service=row.get("service"),
        model=row.get("response_model") or row.get("request_model"),
        operation=row.get("operation"),
        prompt_name=row.get("prompt_name"),
        prompt_version=row.get("prompt_version"),
        environment=row.get("environment"),
        input_tokens=row.get("input_tokens"),
        output_tokens=row.get("output_tokens"),
        retrieved_documents=_array(row.get("retrieved_documents")),
    )


def messages(text: str | None) -> Messages:
    """The messages in a JSON array; none where there is no such array."""
    return tuple(item for item in _array(text) if isinstance(item, dict))


def _array(text: str | None) -> Sequence[Any]:
    if not text:
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return value if isinstance(value, list) else ()


def answer_text(outputs: Iterable[Mapping[str, Any]]) -> str | None:
    """Text of the first choice; None where nothing was captured, or the answer is a call of tools and no text."""
    first = next(iter(outputs), None)
    if first is None:
        return None
    text = text_of(first)
    if not text and any(part.get("type") == "tool_call" for part in _parts(first)):
        return None
    return text


def _last(inputs: Sequence[Mapping[str, Any]], role: str) -> str:
    return next((text_of(message) for message in reversed(inputs) if message.get("role") == role), "")


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = message.get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def text_of(message: Mapping[str, Any]) -> str:
    """The message's text parts together; reasoning, tool calls and media are left out."""
    content = message.get("content")
    if "parts" not in message and isinstance(content, str):
        return clean(content)
    found = (part.get("content") for part in _parts(message) if part.get("type") == "text")
    return clean("\n".join(text for text in found if isinstance(text, str)))


def clean(text: str) -> str:
    """`text` without lone surrogates, which JSON can escape and no file or database can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
