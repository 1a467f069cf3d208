"""OTLP/HTTP trace requests as fast, or as evenly, as a server acknowledges them.

    python -m benchmarks.load --url http://127.0.0.1:8433/v1/traces --spans 200000 [--rate 10000] [--ids FILE] [--retry]

Prints one JSON line: spans acknowledged a second, latencies in milliseconds, what else was answered.  A span is a chat
call of about 1.5 KB in OpenTelemetry's attributes, and in OpenInference's in short, so that other servers show it too.
Each has a trace of its own.  429 and 503 are retried after their Retry-After.  With `--retry` a request whose
connection broke is sent again, the same bytes: the server may have it already and must not have it twice.  `--ids`
gets the trace id of each acknowledged span, a line each.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WORDS = "gpu queue cache token tenant model drift page prompt answer index batch window score alert judge".split()
TEMPLATES = 32  # requests serialised ahead; a sending changes the ids in place
BREAK_SECONDS = 0.05
CONTENT_TYPE = "application/x-protobuf"


class Template:
    """A serialised request whose ids can be replaced."""

    def __init__(self, rng: random.Random, spans: int, content_bytes: int) -> None:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "load"
        scope = resource.scope_spans.add()
        scope.scope.name = "benchmarks.load"
        for _ in range(spans):
            fill(scope.spans.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8)), rng, content_bytes)
        self.body = bytearray(request.SerializeToString())
        self._places = [(self.body.index(span.trace_id), self.body.index(span.span_id)) for span in scope.spans]

    def fresh(self, rng: random.Random) -> tuple[bytes, list[str]]:
        """The body with new ids, and the trace ids in hex."""
        ids = []
        for trace_at, span_at in self._places:
            trace = rng.randbytes(16)
            self.body[trace_at : trace_at + 16] = trace
            self.body[span_at : span_at + 8] = rng.randbytes(8)
            ids.append(trace.hex())
        return bytes(self.body), ids


def fill(span: Span, rng: random.Random, content_bytes: int) -> None:
    """A chat call that ended within the last ten seconds."""

    def messages(role: str) -> str:
        text = " ".join(rng.choices(WORDS, k=max(1, content_bytes // 6)))
        return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])

    span.name, span.kind = "chat llama-3", Span.SPAN_KIND_CLIENT
    span.end_time_unix_nano = time.time_ns() - rng.randrange(10**10)
    span.start_time_unix_nano = span.end_time_unix_nano - rng.randrange(10**8, 10**10)
    asked, answered = messages("user"), messages("assistant")
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": f"llama-3-{rng.randrange(4)}",
        "gen_ai.response.model": "llama-3",
        "gen_ai.response.finish_reasons": "stop",
        "gen_ai.usage.input_tokens": rng.randrange(2000),
        "gen_ai.usage.output_tokens": rng.randrange(500),
        "gen_ai.input.messages": asked,
        "gen_ai.output.messages": answered,
        "tenant.id": f"tenant-{rng.randrange(50)}",
        "session.id": f"s{rng.randrange(10**6)}",
        "openinference.span.kind": "LLM",
        "input.value": asked[:200],
        "output.value": answered[:200],
    }
    for key, value in attributes.items():
        attribute = span.attributes.add(key=key)
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value


@dataclass
class Load:
    """What is sent, and what came of it."""

    url: str
    headers: dict[str, str]
    batch: int
    requests: int
    seconds: float
    rate: float | None  # spans a second, all senders together
    retry: bool
    rng: random.Random
    content_bytes: int = 250
    ids: TextIO | None = None
    acknowledged: int = 0
    resent: int = 0
    latencies: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    async def run(self, senders: int) -> dict[str, Any]:
        """Sends until all requests are answered or the time is over."""
        templates = [Template(self.rng, self.batch, self.content_bytes) for _ in range(TEMPLATES)]
        began = time.perf_counter()
        deadline = began + self.seconds
        turns = self._turns(began)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
            await asyncio.gather(*(self._sender(client, templates, turns, deadline) for _ in range(senders)))
        return self._summary(time.perf_counter() - began, len(templates[0].body))

    def _turns(self, began: float) -> Iterator[float]:
        """When each request may leave."""
        for number in range(self.requests):
            yield began + number * self.batch / self.rate if self.rate else began

    async def _sender(
        self, client: aiohttp.ClientSession, templates: list[Template], turns: Iterator[float], deadline: float
    ) -> None:
        for due in turns:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            body, ids = self.rng.choice(templates).fresh(self.rng)
            while time.perf_counter() < deadline and not await self._send(client, body, ids):
                self.resent += 1
            if time.perf_counter() >= deadline:
                return

    async def _send(self, client: aiohttp.ClientSession, body: bytes, ids: list[str]) -> bool:
        """Whether this request is over, whatever came of it."""
        began = time.perf_counter()
        try:
            async with client.post(self.url, data=body, headers=self.headers) as answer:
                await answer.read()
                status, retry_after = answer.status, answer.headers.get("retry-after", "1")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.others[type(error).__name__] += 1
            await asyncio.sleep(BREAK_SECONDS)
            return not self.retry
        self.latencies.append(time.perf_counter() - began)
        if status == 200:
            self.acknowledged += len(ids)
            if self.ids:
                self.ids.write("\n".join(ids) + "\n")
                self.ids.flush()
            return True
        self.others[str(status)] += 1
        if status in (429, 503):
            await asyncio.sleep(float(retry_after))
            return False
        return True

    def _summary(self, seconds: float, body_bytes: int) -> dict[str, Any]:
        p50, p99, worst = np.percentile(self.latencies, [50, 99, 100]) * 1000 if self.latencies else (None,) * 3
        return {
            "spans_acknowledged": self.acknowledged,
            "seconds": round(seconds, 2),
            "spans_per_second": round(self.acknowledged / seconds),
            "p50_ms": p50 and round(p50, 1),
            "p99_ms": p99 and round(p99, 1),
            "max_ms": worst and round(worst, 1),
            "resent": self.resent,
            "other_answers": dict(self.others),
            "bytes_per_span": round(body_bytes / self.batch),
        }


def header(text: str) -> tuple[str, str]:
    """`NAME:VALUE` of the command line."""
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def main() -> None:
    """Reads the command line, sends, prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=200, help="spans a request")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rate", type=float, help="spans a second at most")
    parser.add_argument("--retry", action="store_true", help="send again what a broken connection left open")
    parser.add_argument("--ids", type=Path, help="file to append the acknowledged trace ids to")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--header", action="append", default=[], type=header, metavar="NAME:VALUE")
    args = parser.parse_args()
    with ExitStack() as stack:
        load = Load(
            url=args.url,
            headers={"content-type": CONTENT_TYPE, **dict(args.header)},
            batch=args.batch,
            requests=args.spans // args.batch,
            seconds=args.seconds,
            rate=args.rate,
            retry=args.retry,
            rng=random.Random(args.seed),
            ids=stack.enter_context(args.ids.open("a")) if args.ids else None,
        )
        print(json.dumps(asyncio.run(load.run(args.senders))))


if __name__ == "__main__":
    main()
