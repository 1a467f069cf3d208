"""What can be said of a span's columns only when all of them are known: which tokens count where, who was asked."""

from collections.abc import Mapping
from typing import Any

from catalog.dialect import SETTLING
from collector.otlp.attributes import dump
from collector.otlp.messages import message_of, parsed

Row = dict[str, Any]
TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_creation_tokens", "reasoning_tokens")
USAGE = (*TOKENS, "cost_usd")
# What nobody says of a call that got no answer.
ANSWER = ("output_tokens", "output_messages", "finish_reason", "response_id", "input_tokens")
# Levels above the calls: what they report is the sum of what the calls below report.
ABOVE_CALLS = frozenset({"agent", "chain"})
# Providers whose usage counts the tokens of thoughts apart from those of the answer.
THOUGHTS_APART = ("gcp", "google", "gemini", "vertex")


def settle(row: Row) -> None:
    """Completes a row, in place; the columns of SETTLING are taken out."""
    beside: dict[str, Any] = {}
    if not row.keys().isdisjoint(SETTLING):
        beside = {name: row.pop(name) for name in SETTLING if name in row}
        _join(row, beside)
    if row.get("output_tokens") is None and row.get("response_model") is not None:
        _unanswered(row)
    if row.get("kind") == "tool" and row.get("tool_name") is None:
        row["tool_name"] = row.get("name")
    if any(row.get(name) is not None for name in USAGE):
        _count(row, beside.get("usage_apart"))


def _unanswered(row: Row) -> None:
    """Several clients put the model that was asked where the one that answered belongs until there is an answer."""
    if any(row.get(name) is not None for name in ANSWER):
        return
    if row.get("request_model") is None:
        row["request_model"] = row["response_model"]
    row["response_model"] = None


def _join(row: Row, beside: Mapping[str, Any]) -> None:
    if "system_instructions" in beside:
        row["input_messages"] = _with_system(row.get("input_messages"), beside["system_instructions"])
    if "answer_tool_calls" in beside:
        row["output_messages"] = _with_calls(row.get("output_messages"), beside["answer_tool_calls"])
    if "own_metadata" in beside:
        row["metadata"] = dump({**(parsed(row.get("metadata")) or {}), **parsed(beside["own_metadata"])})


def _with_system(messages: str | None, instructions: str) -> str | None:
    """The messages after the system prompt; some clients say it in both places."""
    said = parsed(messages) if messages else []
    if not isinstance(said, list) or any(message.get("role") in ("system", "developer") for message in said):
        return messages
    system = message_of({"role": "system", "content": parsed(instructions)})
    return dump([system, *said]) if system else messages


def _with_calls(messages: str | None, calls: str) -> str:
    """One answer of text and tool calls."""
    said = parsed(messages) if messages else []
    if len(said) != 1:
        return calls
    texts = [part for part in said[0]["parts"] if part != {"type": "text", "content": ""}]
    return dump([{**said[0], "parts": [*texts, *parsed(calls)[0]["parts"]]}])


def _count(row: Row, apart: str | None) -> None:
    if row.get("kind") in ABOVE_CALLS or (row.get("output_tokens") == 0 and _has_content(row.get("output_messages"))):
        # No tokens for an answer that has some is a guess, and then so is the rest.
        for name in USAGE:
            if row.get(name) is not None:
                row[name] = None
        return
    given, made = row.get("input_tokens"), row.get("output_tokens")
    if row.get("cost_usd") == 0 and given is None and made is None:
        row["cost_usd"] = None  # of a call that failed
    cached = (row.get("cached_tokens") or 0) + (row.get("cache_creation_tokens") or 0)
    thought = row.get("reasoning_tokens") or 0
    if apart == "rest" and given is not None and (row.get("total_tokens") or 0) > given:
        row["output_tokens"] = row["total_tokens"] - given
        return
    if not (cached or thought):
        return
    input_apart, output_apart = _apart(row, cached, thought, apart)
    if input_apart and given is not None:
        row["input_tokens"] = given + cached
    if output_apart and made is not None:
        row["output_tokens"] = made + thought


def _apart(row: Row, cached: int, thought: int, declared: str | None) -> tuple[bool, bool]:
    """Whether the cached tokens are not contained in the input, and those of thoughts not in the output.

    OpenTelemetry's `input_tokens` and `output_tokens` contain them; several clients pass on what Anthropic, Bedrock
    and Gemini count, which does not.  The total gives it away; without one, the client's dialect says it.
    """
    given, made, total = row.get("input_tokens"), row.get("output_tokens"), row.get("total_tokens")
    if given is not None and cached > given:
        return True, False
    if given is not None and made is not None and total is not None and total > given + made:
        missing = total - given - made
        if missing == cached + thought:
            return bool(cached), bool(thought)
        if missing == thought and (missing != cached or _thinks_apart(row)):
            return False, True
        if missing == cached:
            return True, False
    return declared == "cached", declared == "reasoning"


def _thinks_apart(row: Row) -> bool:
    return (row.get("provider") or "").startswith(THOUGHTS_APART)


def _has_content(messages: str | None) -> bool:
    said = parsed(messages) if messages else None
    return isinstance(said, list) and any(
        part.get("content") or part.get("type") != "text"
        for message in said
        for part in message.get("parts", ())
        if isinstance(part, Mapping)
    )
