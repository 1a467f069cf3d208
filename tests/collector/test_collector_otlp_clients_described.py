"""What clients send that no recording holds: each key as it is described, and the column that it must become."""

import json
from typing import Any

import pytest

from tests.collector.test_collector_otlp_usage import row

CHAT = {"gen_ai.operation.name": "chat"}
ASKED = '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
WITH_SYSTEM = [
    {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
    {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
]
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
DOCUMENTS = [{"id": "1", "score": 0.5, "content": "text", "metadata": {"page": 3}}]
ANSWER_OF_BOTH = [
    {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "let me see"},
            {"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}},
        ],
    }
]
TOOL_FORMS: dict[str, dict[str, Any]] = {
    "openai": {"gen_ai.tool.definitions": json.dumps([{"type": "function", "function": {**TOOL, "type": None}}])},
    "opentelemetry": {"gen_ai.tool.definitions": json.dumps([TOOL])},
    "native": {"gen_ai.tool.definitions": [TOOL]},
    "vercel": {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.prompt.tools": [
            json.dumps({"type": "function", "name": "f", "description": "d", "inputSchema": TOOL["parameters"]})
        ],
    },
    "anthropic": {
        "openinference.span.kind": "LLM",
        "llm.tools.0.tool.json_schema": json.dumps(
            {"name": "f", "description": "d", "input_schema": TOOL["parameters"]}
        ),
    },
    "openllmetry": {
        "llm.request.functions.0.name": "f",
        "llm.request.functions.0.description": "d",
        "llm.request.functions.0.parameters": '{"type": "object"}',
    },
}


@pytest.mark.parametrize("attributes", TOOL_FORMS.values(), ids=TOOL_FORMS)
def test_definitions_of_tools_have_one_form(attributes: dict[str, Any]) -> None:
    assert json.loads(row(CHAT | attributes)["tool_definitions"]) == [TOOL]


@pytest.mark.parametrize(
    "said",
    [
        {"gen_ai.input.messages": ASKED, "gen_ai.system_instructions": '[{"type":"text","content":"be brief"}]'},
        {"gen_ai.input.messages": json.dumps(WITH_SYSTEM), "gen_ai.system_instructions": "be brief"},
        {"ai.operationId": "ai.generateText", "ai.prompt": '{"system":"be brief","prompt":"hi"}'},
        {"gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "be brief", "gen_ai.prompt.1.content": "hi"},
    ],
    ids=["beside", "twice", "vercel", "openllmetry"],
)
def test_a_system_prompt_is_the_first_message_wherever_it_stands(said: dict[str, Any]) -> None:
    assert json.loads(row(CHAT | said)["input_messages"]) == WITH_SYSTEM


def test_an_answer_of_text_and_tool_calls_keeps_both() -> None:
    calls = '[{"toolCallId":"1","toolName":"f","input":"{\\"a\\": 1}"}]'
    found = row(
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.response.text": "let me see",
            "ai.response.toolCalls": calls,
        }
    )
    assert json.loads(found["output_messages"]) == ANSWER_OF_BOTH


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"gen_ai.request.model": "a", "gen_ai.response.model": "a"}, ("a", None)),
        ({"gen_ai.response.model": "a"}, ("a", None)),
        ({"gen_ai.request.model": "a", "gen_ai.response.model": "b", "gen_ai.response.id": "1"}, ("a", "b")),
        ({"gen_ai.request.model": "b-2024", "gen_ai.response.model": "b-2024", "model": '"b"'}, ("b", None)),
        ({"gen_ai.request.model": "a", "model": "b"}, ("a", None)),
    ],
    ids=["asked-twice", "only-response", "answered", "mlflow-swaps", "bare-model"],
)
def test_the_model_that_answered_needs_an_answer(attributes: dict[str, Any], expected: tuple[str, str | None]) -> None:
    found = row(CHAT | attributes)
    assert (found["request_model"], found["response_model"]) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"gen_ai.is_streaming": True}, True),
        ({"llm.is_streaming": False}, False),
        ({"gen_ai.request.stream": "true"}, True),
        ({"mlflow.spanType": '"CHAT_MODEL"', "stream": "true"}, True),
        ({"gen_ai.client.operation.time_to_first_chunk": 0.2}, True),
        ({"langfuse.observation.completion_start_time": '"2026-11-24T00:00:00Z"'}, True),
        ({"ai.operationId": "ai.streamText.doStream"}, True),
        ({"ai.operationId": "ai.generateText.doGenerate"}, False),
        ({"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"stream": true}'}, True),
        # LangChain says so of its streams, too.
        ({"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"stream": false}'}, None),
        ({}, None),
    ],
    ids=lambda value: next(iter(value), "unsaid") if isinstance(value, dict) else str(value),
)
def test_whether_an_answer_was_streamed(attributes: dict[str, Any], expected: bool | None) -> None:
    assert row(CHAT | attributes)["stream"] is expected


@pytest.mark.parametrize(
    "attributes",
    [
        {"traceloop.span.kind": "task", "traceloop.entity.output": json.dumps(DOCUMENTS)},
        {"logfire.span_type": "span", "return": json.dumps(DOCUMENTS)},
        {"gen_ai.output.messages": DOCUMENTS},
        {"gen_ai.operation.name": "retrieval", "gen_ai.output.messages": DOCUMENTS},
        {"mlflow.spanType": '"RETRIEVER"', "mlflow.spanOutputs": json.dumps(DOCUMENTS)},
        {"langfuse.observation.type": "retriever", "langfuse.observation.output": json.dumps(DOCUMENTS)},
    ],
    ids=["openllmetry", "logfire", "openlit", "opentelemetry", "mlflow", "langfuse"],
)
def test_a_function_that_gives_back_documents_is_a_retrieval(attributes: dict[str, Any]) -> None:
    found = row(attributes)
    assert (found["kind"], json.loads(found["retrieved_documents"])) == ("retrieval", DOCUMENTS)


@pytest.mark.parametrize("output", ['[{"role":"assistant","content":"hi"}]', '[{"content":"hi"}]', "[]", '"hi"'])
def test_what_could_be_messages_is_no_documents(output: str) -> None:
    assert row({"traceloop.span.kind": "task", "traceloop.entity.output": output})["kind"] == "chain"


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "f", "gen_ai.tool.call.arguments": '{"a":1}'},
        {"gen_ai.tool.name": "f", "tool_arguments": '{"a":1}', "tool_response": "ok"},
        {"openinference.span.kind": "TOOL", "tool.name": "f", "input.value": '{"a":1}', "output.value": "ok"},
        {
            "langfuse.observation.type": "tool",
            "gen_ai.tool.name": "f",
            "langfuse.observation.input": '{"args":[],"kwargs":{"a":1}}',
        },
        {
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": "f",
            "traceloop.entity.input": '{"args":[],"kwargs":{"a":1}}',
        },
        {"mlflow.spanType": '"TOOL"', "mlflow.spanFunctionName": '"f"', "mlflow.spanInputs": '{"a":1}'},
        {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "f", "ai.toolCall.args": '{"a":1}'},
    ],
    ids=["opentelemetry", "pydantic-ai-v2", "openinference", "langfuse", "openllmetry", "mlflow", "vercel"],
)
def test_a_tool_has_a_name_and_arguments(attributes: dict[str, Any]) -> None:
    found = row(attributes)
    assert (found["kind"], found["tool_name"], found["tool_arguments"]) == ("tool", "f", '{"a":1}')


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"langfuse.trace.metadata.k": '"v"', "langfuse.observation.metadata.n": "1"}, {"k": "v", "n": 1}),
        ({"langfuse.trace.metadata.k": "v", "langfuse.observation.metadata.n": 1}, {"k": "v", "n": 1}),
        ({"traceloop.association.properties.chat_id": "c"}, {"chat_id": "c"}),
        ({"ai.settings.context.sessionId": "s", "ai.settings.context.userId": "u"}, {"sessionId": "s"}),
        ({"metadata": '{"tier": "gold"}'}, {"tier": "gold"}),
    ],
    ids=["langfuse-5", "langfuse-3", "openllmetry", "vercel-7", "openinference"],
)
def test_metadata_is_one_object(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.loads(row(attributes)["metadata"]) == expected


def test_a_session_and_a_user_come_from_the_context_of_vercel_7() -> None:
    found = row({**CHAT, "ai.settings.context.sessionId": "s", "ai.settings.context.userId": "u"})
    assert (found["session_id"], found["user_id"]) == ("s", row({"user.id": "u"})["user_id"])


def test_a_user_among_metadata_is_stored_hashed_alone() -> None:
    found = row({"gen_ai.operation.name": "invoke_agent", "metadata": '{"user_id": "somebody", "tier": "gold"}'})
    assert found["user_id"] == row({"user.id": "somebody"})["user_id"]
    assert "somebody" not in json.dumps({name: str(value) for name, value in found.items()})
    assert json.loads(found["metadata"]) == {"user_id": {"$hashed": found["user_id"]}, "tier": "gold"}


@pytest.mark.parametrize(
    "said", ["tool_call", "tool-calls", "tool_calls", '["tool_calls"]', ["tool_call"], "TOOL_CALLS"]
)
def test_finish_reasons_have_one_spelling(said: Any) -> None:
    assert row(CHAT | {"gen_ai.response.finish_reasons": said})["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("said", ["openai", "openai.chat", "openai.responses", "OpenAI"])
def test_providers_have_one_spelling(said: str) -> None:
    assert row(CHAT | {"gen_ai.system": said})["provider"] == "openai"


def test_a_reply_of_a_tool_is_the_tools_whoever_hands_it_over() -> None:
    part = {"type": "tool_call_response", "id": "1", "result": {"a": 1}}
    for role in ("user", "assistant", "tool"):
        found = row(CHAT | {"gen_ai.input.messages": json.dumps([{"role": role, "parts": [part]}])})
        assert json.loads(found["input_messages"]) == [
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": {"a": 1}}]}
        ]
