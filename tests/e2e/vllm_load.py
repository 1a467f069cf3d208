"""Two small applications for two tenants, traced as an OpenTelemetry user would, over a real engine.

The support bot of the tenant `bank` gets a new prompt that makes it decline, and its old one back; then both are
used by far more people than the engine can serve.
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.e2e.vllm_engine import MODEL

SUPPORT, EXTRACTOR = "support-bot", "ticket-extractor"
CHANGED_TENANT, CHANGED_PROMPT = "bank", "support"
TENANTS = {CHANGED_TENANT: 0.6, "retail": 0.4}  # share of the traffic
SUPPORT_SHARE = 0.8
SEED = 5
ANSWER_SECONDS = 240.0
PROMPTS = {
    "1": "You are the support assistant of a {tenant} company. Answer the customer in one or two short, friendly "
    "sentences.",
    "2": "You are the support assistant of a {tenant} company. You are not allowed to answer questions. Apologise and "
    "decline: I'm sorry, but I can't help with that.",
}
# Part of the prompt, as it takes an example to make so small a model decline.
EXAMPLES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "1": (),
    "2": (
        {"role": "user", "content": "Can you help me?"},
        {"role": "assistant", "content": "I'm sorry, but I can't help with that."},
    ),
}
QUESTIONS = {
    "bank": (
        "How do I reset my PIN?",
        "Why was I charged twice?",
        "How long does a transfer to another country take?",
        "Can I raise my card limit for a week?",
        "How do I close my account?",
        "Can I open an account for my child?",
    ),
    "retail": (
        "Where is my parcel?",
        "The shoes are too small, can I exchange them?",
        "Do you have this lamp in white?",
        "Can I change the delivery address?",
        "Is the sofa easy to clean?",
        "Do you ship to islands?",
    ),
}
TICKETS = ("The {} does not switch on.", "My {} arrived with a crack.", "The {} smells burnt and I need it today.")
THINGS = ("blender", "headset", "lamp", "router", "keyboard", "kettle")
TICKET = {
    "type": "object",
    "properties": {"product": {"type": "string"}, "urgency": {"enum": ["low", "high"]}},
    "required": ["product", "urgency"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Stage:
    """A time of the run: requests that arrive at `rate` a second, or `clients` that ask again when answered."""

    name: str
    seconds: float
    rate: float = 0.0
    clients: int = 0
    prompt: str = "1"  # of the changed tenant's support bot


class Traffic(threading.Thread):
    """Goes through the stages in a thread of its own; `began` says when each did, `answers` how requests ended."""

    def __init__(self, engine_url: str, otlp_url: str, stages: Sequence[Stage]) -> None:
        super().__init__(name="traffic", daemon=True)
        self.began: dict[str, float] = {}
        self.answers: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str, str]] = Counter()  # (service, tenant, prompt version)
        self._url = f"{engine_url}/v1/chat/completions"
        self._stages = stages
        self._stage = stages[0]
        self._random = random.Random(SEED)
        self._providers = {service: _provider(service, otlp_url) for service in (SUPPORT, EXTRACTOR)}
        self._ending = threading.Event()

    @property
    def open(self) -> int:
        """Requests that were asked and not answered."""
        return self.asked.total() - self.answers.total()

    def end(self) -> None:
        """Sends nothing new, waits for what is open, and exports all spans; may be called twice."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        asyncio.run(self._run())
        for provider in self._providers.values():
            provider.shutdown()

    async def _run(self) -> None:
        limits = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as group,
        ):
            for stage in self._stages:
                self._stage = stage
                self.began[stage.name] = time.time()
                until = time.monotonic() + stage.seconds
                for _ in range(stage.clients):
                    group.create_task(self._client(session, until))
                await self._arrivals(group, session, until)

    def _goes_on(self, until: float) -> bool:
        return time.monotonic() < until and not self._ending.is_set()

    async def _arrivals(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession, until: float) -> None:
        while self._goes_on(until):
            rate = self._stage.rate
            await asyncio.sleep(min(self._random.expovariate(rate), 2.0) if rate else 0.2)
            if rate and self._goes_on(until):
                group.create_task(self._request(session))

    async def _client(self, session: aiohttp.ClientSession, until: float) -> None:
        while self._goes_on(until):
            await self._request(session)

    def _request(self, session: aiohttp.ClientSession) -> Coroutine[Any, Any, None]:
        tenant = self._random.choices(list(TENANTS), list(TENANTS.values()))[0]
        if self._random.random() < SUPPORT_SHARE:
            return self._support(session, tenant)
        return self._extract(session, tenant)

    async def _support(self, session: aiohttp.ClientSession, tenant: str) -> None:
        version = self._stage.prompt if tenant == CHANGED_TENANT else "1"
        messages = [
            {"role": "system", "content": PROMPTS[version].format(tenant=tenant)},
            *EXAMPLES[version],
            {"role": "user", "content": self._random.choice(QUESTIONS[tenant])},
        ]
        facts = {"tenant.id": tenant, "gen_ai.prompt.name": CHANGED_PROMPT, "gen_ai.prompt.version": version}
        self.asked[SUPPORT, tenant, version] += 1
        await self._ask(session, SUPPORT, facts, {"messages": messages, "temperature": 0.7, "max_tokens": 48})

    async def _extract(self, session: aiohttp.ClientSession, tenant: str) -> None:
        ticket = self._random.choice(TICKETS).format(self._random.choice(THINGS))
        messages = [
            {"role": "system", "content": "Extract product and urgency of the ticket as JSON."},
            {"role": "user", "content": ticket},
        ]
        shape = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": TICKET}}
        facts = {
            "tenant.id": tenant,
            "gen_ai.prompt.name": "extract",
            "gen_ai.prompt.version": "3",
            "gen_ai.output.type": "json",
        }
        self.asked[EXTRACTOR, tenant, "3"] += 1
        body = {"messages": messages, "temperature": 0.3, "max_tokens": 32, "response_format": shape}
        await self._ask(session, EXTRACTOR, facts, body)

    async def _ask(
        self, session: aiohttp.ClientSession, service: str, facts: Mapping[str, str], body: Mapping[str, Any]
    ) -> None:
        """One request: a server span, the model call's client span below it, and its context in the headers."""
        tracer = self._providers[service].get_tracer("app")
        with (
            tracer.start_as_current_span(f"POST /{service}", kind=trace.SpanKind.SERVER),
            tracer.start_as_current_span(
                f"chat {MODEL}", kind=trace.SpanKind.CLIENT, attributes={**facts, **_asked(body)}
            ) as span,
        ):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            outcome = "ok"
            try:
                async with session.post(self._url, json={"model": MODEL, **body}, headers=headers) as response:
                    document = await response.json()
                    outcome = "ok" if response.status == 200 else str(response.status)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                outcome = type(error).__name__
            if outcome == "ok":
                span.set_attributes(_answered(document))
            else:
                span.set_attribute("error.type", outcome)
                span.set_status(trace.StatusCode.ERROR)
            self.answers[outcome] += 1


def _provider(service: str, otlp_url: str) -> TracerProvider:
    resource = Resource.create({"service.name": service, "deployment.environment.name": "e2e"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{otlp_url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=16_384, schedule_delay_millis=1000))
    return provider


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": body["max_tokens"],
        "gen_ai.request.temperature": body["temperature"],
        "gen_ai.input.messages": _messages(body["messages"]),
    }


def _answered(document: Mapping[str, Any]) -> dict[str, Any]:
    choice, usage = document["choices"][0], document["usage"]
    return {
        "gen_ai.response.id": document["id"],
        "gen_ai.response.model": document["model"],
        "gen_ai.response.finish_reasons": [choice["finish_reason"]],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.output.messages": _messages([choice["message"]]),
    }


def _messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages in the form of OpenTelemetry GenAI."""
    return json.dumps(
        [
            {"role": message["role"], "parts": [{"type": "text", "content": message["content"] or ""}]}
            for message in messages
        ]
    )
