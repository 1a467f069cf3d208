"""Messages in whatever state they come."""

import json
from typing import Any

import pytest

from evals.samples import sample

TOOL_CALL = {"type": "tool_call", "id": "1", "name": "look_up", "arguments": "{}"}


def messages(*parts: Any, role: str = "assistant") -> str:
    return json.dumps([{"role": role, "parts": list(parts)}])


def text(content: Any) -> dict[str, Any]:
    return {"type": "text", "content": content}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (messages(text("one"), text("two")), (True, "one\ntwo")),
        (messages({"type": "reasoning", "content": "hm"}, text("yes")), (True, "yes")),
        (messages(text("")), (True, "")),
        (messages(TOOL_CALL), (False, "")),
        (messages(text("let me see"), TOOL_CALL), (True, "let me see")),
        (json.dumps([{"role": "assistant", "content": "plain"}]), (True, "plain")),
        (messages(text("first choice"))[:-1] + ", " + messages(text("second"))[1:], (True, "first choice")),
        (messages(text("broken \ud800 pair")), (True, "broken ? pair")),
        (None, (False, "")),
        ("", (False, "")),
        ("[]", (False, "")),
        ("{}", (False, "")),
        ('[{"role": "assistant", "parts": [{"type": "text", "conte', (False, "")),
        ("[" * 100_000, (False, "")),
        ("[1, null, []]", (False, "")),
        (json.dumps([{"role": "assistant", "parts": [1, None, text(5), text(None)]}]), (True, "")),
        (json.dumps([{"role": "assistant", "parts": "no list"}]), (True, "")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_answer_is_the_text_of_the_first_choice(output: str | None, expected: tuple[bool, str]) -> None:
    found = sample({"output_messages": output})
    assert (found.answered, found.output_text) == expected


def test_the_question_is_the_last_of_the_user_and_instructions_are_joined() -> None:
    conversation = [
        {"role": "system", "parts": [text("Be brief.")]},
        {"role": "user", "parts": [text("first")]},
        {"role": "assistant", "parts": [text("answer")]},
        {"role": "developer", "parts": [text("Be kind.")]},
        {"role": "user", "parts": [text("second"), {"type": "blob", "content": "AAAA"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "42"}]},
    ]
    found = sample({"input_messages": json.dumps(conversation)})
    assert (found.input_text, found.system_text) == ("second", "Be brief.\nBe kind.")
