"""Why do I not see my data: plain sentences from what arrived, what is stored, and who listens."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from collector.otlp.decode import REASONS as SPAN_REASONS
from collector.otlp.log_decode import NOT_KEPT
from collector.otlp.log_decode import REASONS as LOG_REASONS
from collector.otlp.metrics.registry import REASONS as METRIC_REASONS
from collector.otlp.paths import PATHS
from collector.otlp.tenancy import REASONS as TENANCY_REASONS

Row = Mapping[str, Any]
REASONS = {**METRIC_REASONS, **LOG_REASONS, **NOT_KEPT, **SPAN_REASONS, **TENANCY_REASONS}
MOST_OF_A_KIND = 5
STORED = ("stored", "duplicate", "served")


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One sentence, what to do about it, and where to look; `count` is of the last hour."""

    code: str
    level: Level
    text: str
    fix: str = ""
    link: str = ""
    count: int = 0


@dataclass(frozen=True)
class Stored:
    """What the store has of what was asked for, as far as the asker may see it."""

    spans: int = 0
    requests: int = 0
    without_tenant: int = 0
    latest: str = ""
    latest_trace: str = ""


@dataclass(frozen=True)
class Asked:
    """Whose data is missed; None is anybody's."""

    service: str | None = None
    tenant: str | None = None
    trace: str | None = None

    def words(self) -> str:
        """`of service 'shop', tenant 'a'`, or nothing."""
        said = ((name, getattr(self, name)) for name in ("service", "tenant", "trace"))
        named = [f"{name} {value!r}" for name, value in said if value is not None]
        return f" of {', '.join(named)}" if named else ""


@dataclass(frozen=True)
class Evidence:
    """All that is known; rows as `service.arrivals.visible` gives them, keys as they may be shown."""

    asked: Asked
    requests: Sequence[Row]
    items: Sequence[Row]
    stored: Stored
    listeners: Sequence[Row] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)
    keys: Sequence[Row] = ()
    endpoint: str = ""
    public_url: str = ""
    withheld: str = ""  # how content is kept, where it is not in full
    redactions: int = 0


def explain(evidence: Evidence) -> list[Finding]:
    """What there is to say, the worst first."""
    found = [finding for look in LOOKS for finding in look(evidence)]
    order = list(Level)[::-1]
    return sorted(found, key=lambda finding: (order.index(finding.level), -finding.count))


def seen(findings: Iterable[Finding]) -> bool:
    """Whether the data is there to be seen."""
    return any(finding.code == "stored" for finding in findings)


def _listeners(evidence: Evidence) -> Iterator[Finding]:
    for row in evidence.listeners:
        if not row["up"]:
            text = f"Nothing of Tidegauge listens on {row['address']}: {row['problem']}"
            fix = f"stop what has that port, or set {row['name']} to a free one and point the exporter there"
            yield Finding("listener", Level.PROBLEM, text, fix)


def _nothing(evidence: Evidence) -> Iterator[Finding]:
    if evidence.requests or evidence.items or evidence.stored.spans:
        return
    listening = ", ".join(f"{row['address']} ({row['name']})" for row in evidence.listeners if row["up"])
    text = "No telemetry arrived since this service started" + (f"; it listens on {listening}" if listening else "")
    fix = (
        f"set OTEL_EXPORTER_OTLP_ENDPOINT={evidence.endpoint} where the application runs; from a container, "
        "127.0.0.1 is the container itself"
    )
    yield Finding("nothing", Level.PROBLEM, text, fix)


FIXES: Mapping[str, str] = {
    "not_found": f"send to {', '.join(PATHS)}; SDKs append these to OTEL_EXPORTER_OTLP_ENDPOINT by themselves, but not "
    "to OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "unauthorized": "make a key with 'tidegauge keys create --role ingest', and set "
    "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20KEY",
    "malformed": "the exporter's content type or compression does not fit what it sends, or a proxy cut the body off",
    "unsupported": "use http/protobuf, http/json or grpc, each on its own port",
    "too_large": "lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or raise otlp.max_request_bytes and otlp.max_body_bytes",
    "incomplete": "lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE, raise the exporter's timeout, or otlp.max_request_bytes",
    "timeout": "the network or a proxy is slow; see otlp.body_timeout_seconds",
    "overloaded": "exporters try again by themselves; see the panels 'Queue of the writer' and 'Commit duration'",
    "unavailable": "nothing can be stored: look at /readyz, at the disk's free space and its permissions",
    "error": "the service's log has the reason",
}
WORDS: Mapping[str, str] = {
    "not_found": "came to a path that is none",
    "unauthorized": "{were} refused for their key",
    "malformed": "could not be read",
    "unsupported": "{were} of a form that is not read",
    "too_large": "{were} too large",
    "incomplete": "did not come whole",
    "timeout": "took too long to arrive",
    "overloaded": "{were} put off by overload",
    "unavailable": "{were} put off since nothing can be stored",
    "error": "met an error of ours",
}


def _refused(evidence: Evidence) -> Iterator[Finding]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in evidence.requests:
        if row["outcome"] in WORDS:
            groups[row["outcome"], row["transport"], row["path"]].append(row)
    for (outcome, transport, path), rows in groups.items():
        newest = max(rows, key=lambda row: row["last"])
        count = sum(row["last_hour"] for row in rows)
        text = (
            f"{_many(count, 'request')} over {transport} to {path or '/'} {_said(WORDS[outcome], count)}, the last at "
        )
        text += f"{newest['last']:%H:%M:%S} UTC" + (f" from {newest['client']}" if newest["client"] else "")
        text += f": {newest['example']}" if newest["example"] else ""
        yield Finding(outcome, Level.PROBLEM, text, FIXES[outcome], count=count)


LEFT_OUT: Mapping[str, str] = {
    "too_old": "set the sender's clock, or raise otlp.max_age_seconds",
    "in_the_future": "set the sender's clock (NTP), or raise otlp.max_future_seconds",
    "ends_before_start": "the instrumentation mixes clocks; update it",
    "tenant_mismatch": "send with a key that is bound to that tenant, or set otlp.tenant_mismatch: override",
    "tenant_missing": "set the attribute tenant.id (see otlp.tenant_keys), or use a key of one tenant",
    "no_trace": "set otlp.logs: all, if these are wanted",
    "not_genai": "set otlp.logs: traced or all, if these are wanted",
}
NOTES: Mapping[str, str] = {
    "truncated: attributes": "Attributes longer than otlp.max_attribute_bytes were cut",
    "overridden: tenant": "Items that named another tenant than their key's were given the key's",
    "not kept: file": "Files (images, media) were not kept, the texts beside them were",
}


def _left_out(evidence: Evidence) -> Iterator[Finding]:
    for row in _of_asked(evidence):
        status, _, reason = row["fate"].partition(": ")
        count, service = row["last_hour"], f" of service {row['service']!r}" if row["service"] else ""
        things = _many(count, {"traces": "span", "logs": "log record"}.get(row["signal"], "metric point"))
        if row["fate"] in NOTES:
            yield Finding(status, Level.NOTE, f"{NOTES[row['fate']]}{service}: {count}", count=count)
        elif status in ("rejected", "discarded"):
            level = Level.PROBLEM if status == "rejected" else Level.NOTE
            text = _said(f"{things}{service} {{were}} {status}: {REASONS.get(reason, reason)}", count)
            yield Finding(
                reason, level, text, LEFT_OUT.get(reason, "update the instrumentation that sends them"), "", count
            )
        elif status == "failed":
            yield Finding(
                "failed", Level.PROBLEM, f"{things}{service} could not be stored", FIXES["unavailable"], "", count
            )


def _of_asked(evidence: Evidence) -> Iterator[Row]:
    """Items that are, or may be, what was asked for: of many it is not known whose they were."""
    for row in evidence.items:
        service, tenant = evidence.asked.service, evidence.asked.tenant
        if (service is None or not row["service"] or service in row["service"].split(", ")) and (
            tenant is None or row["tenant"] in ("", tenant)
        ):
            yield row


def _waiting(evidence: Evidence) -> Iterator[Finding]:
    for signal, count in evidence.waiting.items():
        if count:
            text = f"{_many(count, 'item')} of {signal} arrived, to be committed yet"
            yield Finding("waiting", Level.NOTE, text, FIXES["overloaded"], count=count)


def _others(evidence: Evidence) -> Iterator[Finding]:
    """What did arrive, where what was asked for did not."""
    asked, stored = evidence.asked, evidence.stored
    if stored.spans or not evidence.items:
        return
    arrived = [row for row in evidence.items if row["fate"].startswith(STORED)]
    if asked.trace is not None:
        text = f"No span of trace {asked.trace!r} is stored that may be seen with this key"
        fix = "was it sampled out, or not flushed yet? A process that ends must shut its tracer provider down"
        yield Finding("unknown_trace", Level.PROBLEM, text, fix)
    if asked.service is not None and arrived:
        yield from _other_names("service", asked.service, {row["service"] for row in arrived})
    if asked.tenant is not None and arrived:
        yield from _other_names("tenant", asked.tenant, {row["tenant"] for row in arrived if _is_service(row, asked)})


def _is_service(row: Row, asked: Asked) -> bool:
    return asked.service is None or row["service"] == asked.service


def _other_names(kind: str, wanted: str, there: Collection[str]) -> Iterator[Finding]:
    if wanted in there or not there:
        return
    near = difflib.get_close_matches(wanted, [name for name in there if name], 1, 0.6)
    names = ", ".join(repr(name) if name else f"no {kind} at all" for name in sorted(there)[:MOST_OF_A_KIND])
    text = f"Nothing of {kind} {wanted!r} arrived lately; what arrived says {names}"
    attribute = "service.name (OTEL_SERVICE_NAME)" if kind == "service" else "tenant.id (see otlp.tenant_keys)"
    fix = f"did you mean {near[0]!r}?" if near else f"set the resource attribute {attribute}"
    yield Finding(f"other_{kind}", Level.PROBLEM, text, fix)


def _stored(evidence: Evidence) -> Iterator[Finding]:
    stored, asked = evidence.stored, evidence.asked
    if not stored.spans:
        return
    link = f"{evidence.public_url}/requests/{stored.latest_trace}"
    are = "is" if stored.spans == 1 else "are"
    text = f"{_many(stored.spans, 'span')}{asked.words()} {are} stored, the latest from {stored.latest}"
    yield Finding("stored", Level.OK, text, link=link, count=stored.spans)
    if not stored.requests:
        text = "None of that is a model call (kind llm or embedding), so the list of requests does not show them"
        fix = "is the model client instrumented? See docs/tracing.md for the attributes that make a model call"
        yield Finding("no_requests", Level.PROBLEM, text, fix, link)
    if stored.without_tenant:
        text = (
            f"{_many(stored.without_tenant, 'span')} without a tenant: keys that are bound to tenants do not show them"
        )
        fix = "set the resource attribute tenant.id, or send with a key that is bound to the tenant"
        yield Finding("no_tenant", Level.NOTE, text, fix, count=stored.without_tenant)


def _unread(evidence: Evidence) -> Iterator[Finding]:
    """Tenants whose rows no bound key may read, where keys are bound at all."""
    reading = [row for row in evidence.keys if row["revoked_at"] is None and row["role"] != "ingest"]
    bound = [row for row in reading if row["tenants"] is not None]
    if not bound:
        return
    readable = {tenant for row in bound for tenant in row["tenants"]}
    tenants = {row["tenant"] for row in _of_asked(evidence) if row["tenant"] and row["fate"].startswith(STORED)}
    for tenant in sorted(tenants - readable)[:MOST_OF_A_KIND]:
        text = f"Tenant {tenant!r} has data, but none of the {len(bound)} keys bound to tenants may read it"
        yield Finding("filtered", Level.NOTE, text, f"tidegauge keys create --role read --tenant {tenant}")


def _privacy(evidence: Evidence) -> Iterator[Finding]:
    if evidence.withheld:
        text = f"Prompts and answers are kept {evidence.withheld}, by configuration: their columns may be empty"
        yield Finding("withheld", Level.NOTE, text, "privacy.capture, privacy.tenants")
    if evidence.redactions:
        text = f"{_many(evidence.redactions, 'text')} replaced by placeholders before anything was stored"
        yield Finding("redacted", Level.NOTE, text, "privacy.redact", count=evidence.redactions)


LOOKS: Sequence[Callable[[Evidence], Iterator[Finding]]] = (
    _listeners, _nothing, _refused, _left_out, _waiting, _others, _stored, _unread, _privacy,
)  # fmt: skip


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _said(text: str, count: int) -> str:
    return text.replace("{were}", "was" if count == 1 else "were")
