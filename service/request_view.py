"""One trace with what explains it: its spans and scores, and how engine and GPU were while it was served."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from store.reads import Reads
from store.reads_pages import Pages
from store.scope import Scope, Selection, moment

AROUND_SECONDS = 30.0
MAX_TICKS = 900
MAX_REQUESTS = 20
MAX_SCORES = 500
MAX_LOGS = 200
# A record may be written after its span's end, by a clock that is not quite the span's.
LOGS_AROUND_SECONDS = 60.0
# An engine that said nothing for this long before a request is not taken for one that could have served it.
RECENT_SECONDS = 60.0
MAXIMA = ("requests_waiting", "requests_running", "kv_cache_usage_ratio")
DIFFERENCES = ("preemptions", "prompt_tokens", "generation_tokens", "requests_finished")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})
SUMMARY = (
    "request_id trace_id span_id start_time end_time duration_s service operation provider "
    "request_model response_model tenant user_id session_id prompt_name prompt_version deployment environment region "
    "input_tokens output_tokens cached_tokens reasoning_tokens cost_usd finish_reason status error_type vantage "
    "engine_instance engine_time_to_first_token_s engine_queue_time_s engine_prefill_time_s engine_decode_time_s "
    "engine_inference_time_s engine_request_duration_s"
).split()

Row = dict[str, Any]
Targets = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """The targets that served a request, or may have, and how that is known."""

    targets: tuple[str, ...]
    by: str
    certain: bool
    note: str


def request_view(
    reads: Reads, scope: Scope, trace_id: str, targets: Targets, around: float = AROUND_SECONDS
) -> Row | None:
    """The trace as the scope may see it, with ticks from `around` seconds before to after; None if there is none.

    `requests` holds each model call of the trace with `engine` and `gpu` beside; `spans` is oldest first.
    """
    pages = Pages(reads)
    spans = reads.trace(scope, trace_id)
    if not spans:
        return None
    configured = targets()
    calls = [span for span in spans if span["is_request"]]
    requests = [_request(pages, reads, call, spans, configured, around) for call in calls[:MAX_REQUESTS]]
    scores = reads.scores(scope, Selection({"trace_id": trace_id}), limit=MAX_SCORES)
    for score in scores:
        del score["page_key"]
    start, end = min(span["start_time"] for span in spans), max(span["end_time"] for span in spans)
    logs = pages.logs(
        scope,
        trace_id,
        start=start.timestamp() - LOGS_AROUND_SECONDS,
        end=end.timestamp() + LOGS_AROUND_SECONDS,
        limit=MAX_LOGS + 1,
    )
    return {
        "trace_id": trace_id,
        "start_time": start,
        "end_time": end,
        "requests": requests,
        "requests_not_shown": max(len(calls) - MAX_REQUESTS, 0),
        "scores": scores,
        "spans": spans,
        "logs": logs[:MAX_LOGS],
        "logs_truncated": len(logs) > MAX_LOGS,
    }


def first_token_seconds(request: Mapping[str, Any]) -> float | None:
    """The request's time to first token: as its caller saw it, else as the engine did."""
    own: float | None = request.get("time_to_first_token_s")
    engine: float | None = request.get("engine_time_to_first_token_s")
    return own if own is not None else engine


def _request(
    pages: Pages, reads: Reads, call: Row, spans: Sequence[Row], configured: Sequence[Row], around: float
) -> Row:
    members = [span for span in spans if span["request_id"] == call["request_id"]]
    engine_span = next((span for span in members if span["vantage"] == "engine"), None)
    start, end = call["start_time"].timestamp(), call["end_time"].timestamp()
    found = find_engine(pages, call, engine_span, configured, start - RECENT_SECONDS, end + RECENT_SECONDS)
    moments = _moments(call, engine_span)
    model = call["response_model"] or call["request_model"]
    engines = _engines(reads, found.targets, model, moments, around)
    summary = {name: call[name] for name in SUMMARY}
    summary["time_to_first_token_s"] = first_token_seconds(call)
    summary["input_messages"] = call["input_messages"]
    summary["output_messages"] = call["output_messages"]
    summary["first_token_time"] = moment(moments["first_token"]) if "first_token" in moments else None
    summary["engine"] = {
        "by": found.by,
        "certain": found.certain,
        "note": found.note,
        "targets": engines,
    }
    summary["gpu"] = _gpus(pages, reads, found, engines, configured, (start, end), around)
    return summary


def _moments(call: Row, engine_span: Row | None) -> dict[str, float]:
    """Unix seconds of the request's start, first token (where known) and end."""
    start, end = call["start_time"].timestamp(), call["end_time"].timestamp()
    moments = {"start": start}
    if call["time_to_first_token_s"] is not None:
        moments["first_token"] = start + call["time_to_first_token_s"]
    elif engine_span is not None and engine_span["time_to_first_token_s"] is not None:
        moments["first_token"] = engine_span["start_time"].timestamp() + engine_span["time_to_first_token_s"]
    if "first_token" in moments:
        moments["first_token"] = min(max(moments["first_token"], start), end)
    moments["end"] = end
    return moments


# --- which engine ---------------------------------------------------------------------------------------------------


def find_engine(
    pages: Pages, call: Row, engine_span: Row | None, configured: Sequence[Row], start: float, end: float
) -> Found:
    """The engine behind a request: by its own span, else by an instance that a span names, else by model."""
    seen = pages.engines(start=start, end=end)
    names: dict[str, set[str]] = {}
    for row in seen:
        names.setdefault(row["target"], {row["target"]}).update({row["instance"]} - {None})
    for row in configured:
        if row.get("name") in names:
            names[row["name"]] |= _labels(row)
    for by, said in _said(call, engine_span):
        matches = _matching(said, names)
        if matches:
            note = f"{said} is {'the' if len(matches) == 1 else f'one of {len(matches)}'} scraped target"
            return Found(matches, by, len(matches) == 1, note)
    model = call["response_model"] or call["request_model"]
    serving = tuple(dict.fromkeys(row["target"] for row in seen if model and row["model"] == model))
    if serving:
        note = f"no span says which engine answered; {len(serving)} scraped target(s) served {model} then"
        return Found(serving, f"model: one of {len(serving)} replica{'s' * (len(serving) != 1)}", False, note)
    return Found((), "not found", False, "no scraped engine is known to have served this request")


def _said(call: Row, engine_span: Row | None) -> list[tuple[str, str]]:
    """Names of the engine that the spans give, the surest first, each with how it was given."""
    said: list[tuple[str, str | None]] = []
    if engine_span is not None:
        said.append(("engine span's instance", engine_span["instance"]))
        resource = _part(engine_span, "resource")
        said += [(f"instance ({name})", resource.get(name)) for name in ("k8s.pod.name", "host.name")]
    elif call["engine_instance"]:
        said.append(("engine span's instance", call["engine_instance"]))
    attributes = _part(call, "span")
    address, port = attributes.get("server.address"), attributes.get("server.port")
    if address and port:
        said.append(("instance (server.address)", f"{address}:{port}"))
    return [(by, str(name)) for by, name in said if name]


def _part(span: Row, name: str) -> Mapping[str, Any]:
    attributes = span["attributes"]
    part = attributes.get(name) if isinstance(attributes, dict) else None
    return part if isinstance(part, dict) else {}


def _labels(row: Row) -> set[str]:
    """What a configured target may be called: its labels and the authority of its URL."""
    labels = row.get("labels")
    values = [labels.get(name) for name in ("instance", "pod", "host", "node")] if isinstance(labels, Mapping) else []
    return {str(value) for value in [*values, row.get("instance"), _authority(row.get("url"))] if value}


def _authority(url: Any) -> str | None:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or None if isinstance(url, str) else None


def _matching(said: str, names: Mapping[str, set[str]]) -> tuple[str, ...]:
    exact = tuple(target for target, known in names.items() if said in known)
    if exact or ":" in said:
        return exact
    # A pod's or host's name comes without the port.
    return tuple(target for target, known in names.items() if said in {host_of(name) for name in known})


def host_of(name: str) -> str:
    """The host part of `host:port`."""
    host, colon, port = name.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else name


# --- its state ------------------------------------------------------------------------------------------------------


def _engines(
    reads: Reads, targets: Sequence[str], model: str | None, moments: Mapping[str, float], around: float
) -> list[Row]:
    if not targets:
        return []
    first, last = moments["start"] - max(around, RECENT_SECONDS), moments["end"] + around
    ticks: dict[str, list[Row]] = {target: [] for target in targets}
    for row in reads.engine_states(start=first, end=last, targets=targets):
        ticks[row["target"]].append(row)
    return [_engine(target, rows, model, moments, around) for target, rows in ticks.items()]


def _engine(target: str, rows: list[Row], model: str | None, moments: Mapping[str, float], around: float) -> Row:
    """A target's state at the moments and between, from its ticks by time."""
    # The engine may call the model by another name.
    rows = [row for row in rows if row["model"] == model] or rows
    start, end = moment(moments["start"]), moment(moments["end"])
    states = {name: _at(rows, moment(when)) for name, when in moments.items()}
    ticks = [row for row in rows if row["time"] >= start - timedelta(seconds=around)]
    during = [row for row in ticks if start <= row["time"] <= end]
    known = [row for state in states.values() for row in state]
    at = {name: [_state(row) for row in state] for name, state in states.items()}
    return {
        "target": target,
        "instance": next((row["instance"] for row in [*known, *ticks]), None),
        "at": {name: state[0] if len(state) == 1 else state or None for name, state in at.items()},
        "lifetime": _lifetime([*known, *during], at["start"], at["end"]),
        "ticks": [_state(row) for row in thin(ticks)],
    }


def _at(rows: Sequence[Row], when: datetime) -> list[Row]:
    """The last tick at or before a moment, and not long before, of each model and rank."""
    oldest = when - timedelta(seconds=RECENT_SECONDS)
    last = {(row["model"] or "", row["rank"] or ""): row for row in rows if oldest <= row["time"] <= when}
    return [last[key] for key in sorted(last)]


def _state(row: Row) -> Row:
    """A tick without what it does not say."""
    return {name: value for name, value in row.items() if value is not None}


def _lifetime(rows: Sequence[Row], at_start: Sequence[Row], at_end: Sequence[Row]) -> Row:
    """Maxima over all ticks of the request's life, and how far the counters went from its start to its end."""
    found: Row = {"ticks": len({row["time"] for row in rows})}
    for name in MAXIMA:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            found[f"max_{name}"] = max(values)
    for name in DIFFERENCES:
        before = [row[name] for row in at_start if name in row]
        after = [row[name] for row in at_end if name in row]
        if before and len(before) == len(after):
            found[f"{name}_during"] = sum(after) - sum(before)
    return found


def thin(rows: Sequence[Row]) -> list[Row]:
    """At most MAX_TICKS of the rows, evenly spread, the last among them."""
    step = -(-len(rows) // MAX_TICKS) or 1
    kept = list(rows[::step])
    if rows and kept[-1] is not rows[-1]:
        kept.append(rows[-1])
    return kept


# --- its GPU --------------------------------------------------------------------------------------------------------


def _gpus(
    pages: Pages,
    reads: Reads,
    found: Found,
    engines: Sequence[Row],
    configured: Sequence[Row],
    life: tuple[float, float],
    around: float,
) -> Row:
    """GPUs of the nodes that the engines run on; never another card's, however alone it is."""
    if not engines:
        return {"by": None, "certain": False, "note": "no engine, no GPU", "gpus": []}
    wanted = {node for engine in engines for node in _nodes(engine, configured)}
    start, end = life[0] - around, life[1] + around
    ticks = reads.gpu_states(start=start, end=end, nodes=sorted(wanted))
    if not ticks:
        have = pages.gpu_nodes(start=start, end=end)
        others = f"GPUs of {len(have)} other node(s) are" if have else "no GPU is"
        note = f"{others} known for that time; none on {' or '.join(sorted(wanted)) or 'a node that the engine names'}"
        return {"by": None, "certain": False, "note": note, "gpus": []}
    gpus = _cards(ticks, *life)
    matching = sorted({gpu["node"] for gpu in gpus})
    return {
        "by": "node",
        "certain": found.certain and len({gpu["gpu"] for gpu in gpus}) == 1,
        "note": f"GPUs of node {', '.join(matching)}, where the engine runs; the engine may use some of them",
        "gpus": gpus,
    }


def _nodes(engine: Row, configured: Sequence[Row]) -> set[str]:
    """Nodes that an engine names: a label, else the host in its instance or address."""
    row = next((row for row in configured if row.get("name") == engine["target"]), {})
    labels = row.get("labels") if isinstance(row.get("labels"), Mapping) else {}
    for name in ("node", "host"):
        if labels and labels.get(name):
            return {str(labels[name])}
    said = engine["instance"] or _authority(row.get("url")) or engine["target"]
    host = host_of(said)
    return {platform.node() if host in LOOPBACK else host} - {""}


def _cards(states: Sequence[Row], start: float, end: float) -> list[Row]:
    ticks: dict[tuple[str, str], list[Row]] = {}
    for row in states:
        ticks.setdefault((row["node"], row["gpu"]), []).append(_state(row))
    cards = []
    for (node, gpu), rows in ticks.items():
        during = [row for row in rows if start - 1 <= row["time"].timestamp() <= end]
        cards.append(
            {
                "gpu": gpu,
                "node": node,
                "gpu_model": rows[0].get("gpu_model"),
                "at": {
                    "start": _last_before(rows, moment(start)),
                    "end": _last_before(rows, moment(end)),
                },
                "lifetime": {
                    f"max_{name}": max(values)
                    for name in ("utilization_ratio", "power_watts", "memory_usage_bytes", "temperature_celsius")
                    if (values := [row[name] for row in during if name in row])
                },
                "ticks": thin(rows),
            }
        )
    return cards


def _last_before(rows: Sequence[Row], time: datetime) -> Row | None:
    return next((row for row in reversed(rows) if row["time"] <= time), None)
