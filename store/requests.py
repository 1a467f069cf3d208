"""Which spans describe the same model call, and which one stands for it.

The same call arrives several times: from the client's instrumentation, a gateway, the engine, in any order and
in different exports.  Spans of a call are paired by parent and child, else by response id, else by trace, model
and containment in time.  A group's spans share a `request_id`; the best vantage is its `is_request`.

What the span that stands for the call does not say and another does is filled in: the usage (of a stream that was not
asked for it, say, from the engine), an answer that came apart from its call, and the session of a span above.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from store.answers import Answers, is_answer
from store.fills import Fill, What

RANK: Mapping[str | None, int] = {"client": 0, "frontend": 1, "gateway": 1, None: 1, "engine": 2}
CALL_KINDS = frozenset({"llm", "embedding"})
ENGINE_COLUMNS = {
    "time_to_first_token_s": "engine_time_to_first_token_s",
    "queue_time_s": "engine_queue_time_s",
    "prefill_time_s": "engine_prefill_time_s",
    "decode_time_s": "engine_decode_time_s",
    "inference_time_s": "engine_inference_time_s",
    "request_duration_s": "engine_request_duration_s",
}
# What the resolver needs to know of a span; the order is that of `SpanFacts`.
FACTS = (
    "trace_id span_id parent_span_id kind vantage response_id request_model response_model "
    "start_time end_time instance tenant session_id user_id status finish_reason output_tokens "
    + " ".join(ENGINE_COLUMNS)
).split()
# Of a call without an answer, and of an answer without a call: what tells that their prompts are the same.
PROMPT_KEY = "prompt_key"
MAX_SPANS_PER_TRACE = 2_000
# Calls of a trace for which a session is looked for.
MAX_WITHOUT = 50
# Containment in time is the last resort, and looks at the latest calls of the trace alone.
MAX_CONTAINMENT = 50


@dataclass(slots=True, eq=False)
class Call:
    """The spans that describe one model call."""

    request_id: str
    members: list["Span"] = field(default_factory=list)

    def representative(self) -> "Span":
        """The best vantage; among equals one that counts its tokens, the innermost: its usage is this call's alone."""
        return min(
            self.members,
            key=lambda span: (span.rank, span.answer, not span.counts, -span.depth, span.start, span.span_id),
        )


@dataclass(slots=True, eq=False)
class Span:
    """A span of a call, as far as pairing needs it."""

    trace_id: str
    span_id: str
    kind: str
    rank: int
    vantage: str | None
    response_id: str | None
    model: str | None
    start: float
    end: float
    facts: Mapping[str, Any]
    counts: bool  # says how many tokens
    answer: bool  # is nothing but the answer of another
    session: bool  # says whose call it is
    depth: int = 0
    # A span around several calls of its own vantage describes none of them, and is no request.
    wraps: bool = False
    call: Call | None = None
    # What was last written for the span: (request_id, is_request, engine span).
    written: tuple[str, bool, str | None] | None = None
    filled: set[What] = field(default_factory=set)


@dataclass(slots=True)
class Trace:
    """What was seen of a trace within the window."""

    touched: float
    parents: dict[str, str | None] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, Span] = field(default_factory=dict)
    sessions: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # spans, not calls, that say one
    without: dict[str, Span] = field(default_factory=dict)  # the latest calls that have none yet

    def add(self, span_id: str, parent: str | None) -> Span | None:
        """Remembers a span; of an endless trace, the last `MAX_SPANS_PER_TRACE`.  Gives the call forgotten for it."""
        forgotten = None
        if len(self.parents) >= MAX_SPANS_PER_TRACE:
            oldest = next(iter(self.parents))
            siblings = self.children.get(self.parents.pop(oldest) or "", [])
            if oldest in siblings:
                siblings.remove(oldest)
            self.children.pop(oldest, None)
            self.sessions.pop(oldest, None)
            forgotten = self.calls.pop(oldest, None)
        self.parents[span_id] = parent
        if parent:
            self.children.setdefault(parent, []).append(span_id)
        return forgotten


@dataclass(frozen=True, slots=True)
class Decision:
    """What the span's row has to say about its request."""

    trace_id: str
    span_id: str
    request_id: str
    is_request: bool
    start_time: datetime
    engine: Mapping[str, Any] | None  # the engine span's facts, where there is one and the span stands for the call


class RequestResolver:
    """Remembers the spans of a bounded window and decides, batch by batch."""

    def __init__(self, window_seconds: float, max_traces: int = 50_000) -> None:
        self._window = window_seconds
        self._max_traces = max_traces
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._by_response: dict[str, list[Span]] = defaultdict(list)
        self._answers: Answers[Span] = Answers()
        self._fills: list[Fill] = []

    def holds(self, trace_id: str) -> bool:
        """Whether the trace is remembered."""
        return trace_id in self._traces

    def fills(self) -> list[Fill]:
        """What is to be filled in after the last `resolve`; given once."""
        made, self._fills = self._fills, []
        return made

    def resolve(self, rows: Iterable[Mapping[str, Any]], now: float) -> list[Decision]:
        """Takes rows with the columns FACTS; gives what has to be written, for these spans and for earlier ones."""
        self._expire(now)
        touched: dict[int, Call] = {}
        fresh = [span for row in rows if (span := self._remember(row, now)) is not None]
        for span in fresh:
            for call in self._pair(span):
                touched[id(call)] = call
        decisions = [decision for call in touched.values() if call.members for decision in self._decide(call)]
        for call in touched.values():
            self._fill_usage(call)
        for trace_id in {span.trace_id for span in fresh}:
            self._fill_sessions(self._traces[trace_id])
        return decisions

    def restore(self, rows: Iterable[Mapping[str, Any]], now: float) -> None:
        """Remembers what was decided: stored rows with FACTS, request_id, is_request and engine_span_id."""
        spans = [span for row in rows if (span := self._remember(row, now)) is not None]
        calls: dict[str, Call] = {}
        for span in spans:
            self._place(span)
            request_id = span.facts["request_id"] or f"{span.trace_id}:{span.span_id}"
            call = None if span.wraps else calls.get(request_id) or self._call_of(request_id)
            if call is None:
                call = Call(request_id)
            if not span.wraps:
                calls[request_id] = call
            call.members.append(span)
            span.call = call
            span.written = (span.facts["request_id"], bool(span.facts["is_request"]), span.facts["engine_span_id"])
        for span in spans:
            # Those that are no requests have met before.
            if span.facts["is_request"]:
                self._answers.meet(span.facts, span)

    def _call_of(self, request_id: str) -> Call | None:
        """The call of this name, if the span that it is named after is remembered and of a call with others."""
        trace_id, _, span_id = request_id.rpartition(":")
        trace = self._traces.get(trace_id)
        span = trace.calls.get(span_id) if trace is not None else None
        call = span.call if span is not None and not span.wraps else None
        return call if call is not None and call.request_id == request_id else None

    def _place(self, span: Span) -> None:
        """How deep a restored span lies, and whether it wraps others; what pairing it would have found out."""
        trace = self._traces[span.trace_id]
        seen = {id(span)}
        above = self._nearest_above(span, trace)
        while above is not None and id(above) not in seen:
            seen.add(id(above))
            span.depth += 1
            above = self._nearest_above(above, trace)
        span.wraps = len(self._peers_below(span, trace)) > 1

    def _remember(self, row: Mapping[str, Any], now: float) -> Span | None:
        trace_id, span_id = row["trace_id"], row["span_id"]
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = Trace(now)
        trace.touched = now
        self._traces.move_to_end(trace_id)
        self._forget_response(trace.add(span_id, row["parent_span_id"]))
        if row["kind"] not in CALL_KINDS:
            if row["session_id"] or row["user_id"]:
                trace.sessions[span_id] = row
            # It may be the missing link between a call and the span that says whose it is.
            self._fill_sessions(trace)
            return None
        span = Span(
            trace_id=trace_id,
            span_id=span_id,
            kind=row["kind"],
            rank=RANK.get(row["vantage"], 1),
            vantage=row["vantage"],
            response_id=row["response_id"],
            model=row["response_model"] or row["request_model"],
            start=row["start_time"].timestamp(),
            end=row["end_time"].timestamp(),
            facts=row,
            counts=row["output_tokens"] is not None,
            answer=is_answer(row),
            session=bool(row["session_id"]),
        )
        trace.calls[span_id] = span
        if not span.session:
            trace.without[span_id] = span
            if len(trace.without) > MAX_WITHOUT:
                del trace.without[next(iter(trace.without))]
        if span.response_id:
            self._by_response[span.response_id].append(span)
        return span

    def _pair(self, span: Span) -> list[Call]:
        """Puts the span into the call of those it belongs with, merging calls that it connects.

        Gives the span's call first, then others that changed.
        """
        trace = self._traces[span.trace_id]
        above = self._nearest_above(span, trace)
        relatives = self._relatives(span, above, trace)
        if not relatives and span.response_id and not span.wraps:
            relatives = [
                other for other in self._by_response[span.response_id] if other is not span and other.kind == span.kind
            ]
        if not relatives and not span.wraps:
            relatives = self._contained(span, trace)
        if (met := self._answers.meet(span.facts, span)) is not None:
            relatives = [*relatives, met]
        call = span.call = Call(request_id=f"{span.trace_id}:{span.span_id}", members=[span])
        for other in relatives:
            if other.call is not None and other.call is not call:
                call = self._merge(other.call, call)
        return [call, above.call] if above is not None and above.call not in (None, call) else [call]

    @staticmethod
    def _merge(kept: Call, joined: Call) -> Call:
        for member in joined.members:
            member.call = kept
        kept.members.extend(joined.members)
        joined.members = []
        return kept

    def _relatives(self, span: Span, above: Span | None, trace: Trace) -> list[Span]:
        """The nearest call span above, and those below whose nearest one above is this."""
        found = []
        if above is not None:
            span.depth = above.depth + 1
            if above.rank == span.rank and len(self._peers_below(above, trace)) > 1:
                self._set_apart(above)
            else:
                found.append(above)
        below = self._below(span, trace)
        for other in below:
            other.depth = max(other.depth, span.depth + 1)
        if sum(other.rank == span.rank for other in below) > 1:
            span.wraps = True
        else:
            found.extend(below)
        return found

    @staticmethod
    def _below(span: Span, trace: Trace) -> list[Span]:
        """Calls whose nearest call above is `span`."""
        found, seen, open_ids = [], {span.span_id}, [span.span_id]
        while open_ids:
            for child in trace.children.get(open_ids.pop(), ()):
                if child in seen:
                    continue
                seen.add(child)
                # An embedding within a chat is no part of that call.
                if child in trace.calls and trace.calls[child].kind == span.kind:
                    found.append(trace.calls[child])
                else:
                    open_ids.append(child)
        return found

    def _peers_below(self, span: Span, trace: Trace) -> list[Span]:
        return [other for other in self._below(span, trace) if other.rank == span.rank]

    @staticmethod
    def _set_apart(span: Span) -> None:
        span.wraps = True
        if span.call is not None and len(span.call.members) > 1:
            span.call.members.remove(span)
            span.call = Call(f"{span.trace_id}:{span.span_id}", [span])

    @staticmethod
    def _nearest_above(span: Span, trace: Trace) -> Span | None:
        seen = {span.span_id}
        parent = trace.parents.get(span.span_id)
        while parent and parent not in seen:
            if parent in trace.calls and trace.calls[parent].kind == span.kind:
                return trace.calls[parent]
            seen.add(parent)
            parent = trace.parents.get(parent)
        return None

    @staticmethod
    def _contained(span: Span, trace: Trace) -> list[Span]:
        for other in trace.calls.values():
            if (
                other is span
                or other.wraps
                or other.rank == span.rank
                or other.kind != span.kind
                or (other.model and span.model and other.model != span.model)
            ):
                continue
            outer, inner = (other, span) if other.rank < span.rank else (span, other)
            if outer.start <= inner.start and inner.end <= outer.end:
                return [other]
        return []

    @staticmethod
    def _decide(call: Call) -> list[Decision]:
        best = call.representative()
        engine = next((m for m in call.members if m.vantage == "engine" and m is not best), None)
        decisions = []
        for span in call.members:
            beside = engine if span is best else None
            stands = span is best and not span.wraps
            state = (call.request_id, stands, beside.span_id if beside else None)
            if span.written != state:
                span.written = state
                decisions.append(
                    Decision(
                        trace_id=span.trace_id,
                        span_id=span.span_id,
                        request_id=call.request_id,
                        is_request=stands,
                        start_time=span.facts["start_time"],
                        engine=beside.facts if beside else None,
                    )
                )
        return decisions

    def _fill_usage(self, call: Call) -> None:
        """From the answer that came apart, else from a span below that counts what the one that stands does not."""
        if len(call.members) < 2:
            return
        best = call.representative()
        answer = next((span for span in call.members if span.answer and span is not best), None)
        if answer is not None:
            self._fill(best, answer.facts, What.ANSWER)
        elif not best.counts:
            below = [span for span in call.members if span.counts and span.rank > best.rank]
            if below:
                self._fill(best, min(below, key=lambda span: span.rank).facts, What.USAGE)

    def _fill_sessions(self, trace: Trace) -> None:
        """Of calls that have none, from the nearest span above that says one."""
        if not trace.sessions:
            return
        for span in list(trace.without.values()):
            giver = self._session_above(span, trace)
            if giver is not None:
                del trace.without[span.span_id]
                if giver["tenant"] == span.facts["tenant"]:
                    self._fill(span, giver, What.SESSION)

    @staticmethod
    def _session_above(span: Span, trace: Trace) -> Mapping[str, Any] | None:
        seen = {span.span_id}
        parent = trace.parents.get(span.span_id)
        while parent and parent not in seen:
            if parent in trace.sessions:
                return trace.sessions[parent]
            seen.add(parent)
            parent = trace.parents.get(parent)
        return None

    def _fill(self, span: Span, giver: Mapping[str, Any], what: What) -> None:
        if what in span.filled:
            return
        span.filled.add(what)
        self._fills.append(
            Fill(
                trace_id=span.trace_id,
                span_id=span.span_id,
                start_time=span.facts["start_time"],
                giver_trace_id=giver["trace_id"],
                giver_span_id=giver["span_id"],
                giver_start_time=giver["start_time"],
                what=what,
            )
        )

    def _expire(self, now: float) -> None:
        while self._traces:
            trace_id, trace = next(iter(self._traces.items()))
            if len(self._traces) <= self._max_traces and now - trace.touched <= self._window:
                return
            del self._traces[trace_id]
            for span in trace.calls.values():
                self._forget_response(span)

    def _forget_response(self, span: Span | None) -> None:
        if span is None or not span.response_id:
            return
        left = [other for other in self._by_response[span.response_id] if other is not span]
        if left:
            self._by_response[span.response_id] = left
        else:
            del self._by_response[span.response_id]
