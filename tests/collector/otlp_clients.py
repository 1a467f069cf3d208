"""Everything that recorded tracing clients sent, taken in through the receiver, and what has to become of it."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.otlp.conversions import hashed
from collector.otlp.outcome import Signal
from collector.otlp.parse import JSON, PROTOBUF, parse
from collector.otlp.receiver import OtlpReceiver
from collector.otlp.sender import Sender
from collector.otlp.settings import OtlpSettings
from tests.collector.otlp_support import DATA, KEY, RECORDED_NOW
from tests.store_kit import Store

RECORDED = DATA / "recorded"
GOLDEN = DATA / "golden"
CLIENTS = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())
NOW = RECORDED_NOW + 86_400
USERS = {hashed(user, KEY): user for user in ("user-42",)}
# Columns as they are, in the order of the golden files; what follows them there is made readable.
PLAIN = (
    "kind operation provider request_model response_model input_tokens output_tokens total_tokens cached_tokens "
    "cache_creation_tokens reasoning_tokens cost_usd finish_reason stream time_to_first_token_s session_id user_id "
    "prompt_name prompt_version error_type tool_name tool_arguments tool_result response_format"
).split()
MESSAGES = ("input_messages", "output_messages")
LISTS = ("retrieved_documents", "tool_definitions", "tags", "metadata")

Sent = list[tuple[Signal, str, bytes]]


def sent(client: str) -> Sent:
    """The bodies that a client sent, in their order: signal, media type, bytes."""
    found = []
    for path in sorted((RECORDED / client).glob("*.gz")):
        signal = Signal.LOGS if "-logs." in path.name else Signal.TRACES
        found.append((signal, JSON if ".json." in path.name else PROTOBUF, gzip.decompress(path.read_bytes())))
    return found


def billed(client: str) -> list[list[Any]]:
    """What the API answered the client's calls with, as far as the client traces and could know it.

    For each call its kind, and the tokens of its usage; null where the API did not send any, or the client drops it.
    """
    found: list[list[Any]] = json.loads((RECORDED / client / "billed.json").read_text())
    return found


def span_by_span(bodies: Sent) -> Sent:
    """The same spans, each in a request of its own."""
    single: Sent = []
    for signal, media, raw in bodies:
        if signal is not Signal.TRACES:
            single.append((signal, media, raw))
            continue
        for resource_spans in parse(raw, media, ExportTraceServiceRequest).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    one = ExportTraceServiceRequest()
                    resource = one.resource_spans.add(resource=resource_spans.resource)
                    resource.scope_spans.add(scope=scope_spans.scope).spans.append(span)
                    single.append((signal, PROTOBUF, one.SerializeToString()))
    return single


def take_in(store: Store, bodies: Sent) -> None:
    """Sends the bodies to a receiver before the store."""
    store.clock.time = NOW
    receiver = OtlpReceiver(
        OtlpSettings(),
        store.writer.submit,
        store.clock,
        store.metrics,
        KEY,
        subjects=lambda traces, responses: store.reads.subjects(traces, responses, since=0.0),
    )

    async def send() -> None:
        for signal, media, raw in bodies:
            outcome = await receiver.receive(raw, media, None, Sender("http"), signal)
            assert outcome.rejected == 0, outcome

    try:
        asyncio.run(send())
    finally:
        receiver.close()


def rows(store: Store, table: str, where: str = "true") -> list[dict[str, Any]]:
    """Rows in the order of their start."""
    found: list[dict[str, Any]] = (
        store.database.cursor()
        .sql(f"SELECT * FROM {table} WHERE {where} ORDER BY start_time, span_id")
        .to_arrow_table()
        .to_pylist()
    )
    return found


def golden(store: Store) -> dict[str, Any]:
    """What a golden file holds: the requests, and the tools, retrievals and agents beside them; unsaid columns not."""
    beside = rows(store, "spans", "kind IN ('tool', 'retrieval', 'agent')")
    return {
        "requests": [readable(row) for row in rows(store, "requests")],
        "beside": [readable(row) for row in beside],
    }


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what it does not say; messages as lines."""
    made = {name: row[name] for name in PLAIN if row[name] is not None}
    if "time_to_first_token_s" in made:
        made["time_to_first_token_s"] = round(made["time_to_first_token_s"], 4)
    if "user_id" in made:
        made["user_id"] = USERS.get(made["user_id"], made["user_id"])
    for name in MESSAGES:
        if row[name] is not None:
            made[name] = [line for message in json.loads(row[name]) for line in _lines(message)]
    for name in LISTS:
        if row[name] is not None:
            made[name] = json.loads(row[name])
    if row["status"] == "error":
        made["status"] = "error"
    return made


def _lines(message: dict[str, Any]) -> list[str]:
    lines = []
    for part in message["parts"]:
        said = part.get("content") or part.get("uri") or part.get("response")
        if part["type"] == "tool_call":
            said = f"{part['name']}({json.dumps(part['arguments'], sort_keys=True)})"
        lines.append(f"{message['role']}: {part['type']}: {said if isinstance(said, str) else json.dumps(said)}"[:200])
    return lines or [f"{message['role']}: (nothing)"]


def golden_path(client: str) -> Path:
    """Where the expectation of a client stands."""
    return GOLDEN / f"{client}.json"


def golden_text(expected: dict[str, Any]) -> str:
    """A golden file's text."""
    return json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
