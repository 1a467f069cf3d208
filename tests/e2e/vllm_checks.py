"""What must be true after the run; each check says what it found, whether it passed or not."""

import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from tests.e2e.service_kit import RunningService
from tests.e2e.vllm_load import EXTRACTOR, SUPPORT, Traffic
from tests.e2e.vllm_watch import CONFIRMED, FIRING, INCIDENT, PAGE, PENDING, SUSPECTED, Watch

# Engine spans of the last exports may still be on their way.
PAIRED = 0.98
CHEAP = ("refusal", "length", "repetition", "json_validity")
LONG_QUEUE = 50


class NotSo(Exception):
    """A check failed; the message says what was found."""


@dataclass(frozen=True)
class Result:
    """A check, whether it passed, and what it found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Run:
    """What checks look at while the service is up."""

    service: RunningService
    traffic: Traffic
    watch: Watch
    own_spans: tuple[float, float]  # stored in two idle periods of the same length, one after the other


def results(run: Run) -> list[Result]:
    """All checks of a running service, in the order of the data's way."""
    return [_result(name, check, run) for name, check in CHECKS.items()]


def own_traces(service: RunningService) -> Result:
    """Own spans by name, read from the database of a service that has ended."""
    with duckdb.connect(str(service.data / "tidegauge.duckdb"), read_only=True) as database:
        rows = database.execute(
            "SELECT regexp_replace(name, ' .*', ''), count(*) FROM spans WHERE service = 'tidegauge' "
            "GROUP BY 1 ORDER BY 1"
        ).fetchall()
    found = ", ".join(f"{count} {name}" for name, count in rows)
    return Result("own traces are stored", len(rows) >= 3, found or "none")


def _result(name: str, check: Callable[[Run], str], run: Run) -> Result:
    try:
        return Result(name, True, check(run))
    except NotSo as error:
        return Result(name, False, str(error))
    except Exception as error:  # a check that cannot be made has failed; the others are still worth making
        return Result(name, False, f"{type(error).__name__}: {error}")


def _need(condition: bool, found: str) -> str:
    if not condition:
        raise NotSo(found)
    return found


def _stored(run: Run) -> str:
    rows = list(_requests(run.service))
    asked, ids = run.traffic.asked.total(), {row["request_id"] for row in rows}
    failed = sum(row["status"] == "error" for row in rows)
    found = f"{asked} asked, {len(rows)} stored ({failed} failed), by {dict(run.traffic.answers)}"
    return _need(len(rows) == len(ids) == asked and asked > 0, found)


def _paired(run: Run) -> str:
    answered = [row for row in _requests(run.service) if row["status"] == "ok"]
    paired = [row for row in answered if row["vantage"] == "client" and row["engine_queue_time_s"] is not None]
    instances = {row["engine_instance"] for row in paired}
    found = f"{len(paired)} of {len(answered)} answers have the engine's own times beside; engine {instances}"
    return _need(len(answered) > 0 and len(paired) >= PAIRED * len(answered), found)


def _scored(run: Run) -> str:
    summary = run.service.get("/api/v1/scores/summary?group_by=evaluator")["summary"]
    means = {row["evaluator"]: row for row in summary}
    found = ", ".join(f"{name} {means[name]['mean']:.2f} (n {means[name]['n']})" for name in CHEAP if name in means)
    answered = run.traffic.answers["ok"]
    return _need(set(CHEAP) <= set(means) and means["refusal"]["n"] >= 0.98 * answered, found or "no scores")


def _refusals(run: Run) -> str:
    path = "/api/v1/scores/summary?evaluator=refusal&group_by=tenant,prompt_name,prompt_version"
    rows = [row for row in run.service.get(path)["summary"] if row["prompt_name"] == "support"]
    found = ", ".join(
        f"{row['tenant']} v{row['prompt_version']} {row['mean']:.0%} [{row['ci_low']:.0%}, {row['ci_high']:.0%}]"
        for row in sorted(rows, key=lambda row: (row["tenant"], row["prompt_version"]))
    )
    return _need(len(rows) == 3, found)


def _judged(run: Run) -> str:
    rows = list(_pages(run.service, "scores", "scores", evaluator="judge"))
    status = Counter(row["status"] for row in rows)
    reasons = Counter(row["error_type"] for row in rows if row["status"] == "failed")
    labels = dict(sorted(Counter(row["label"] for row in rows if row["status"] == "scored").items()))
    tokens = sum((row["judge_input_tokens"] or 0) + (row["judge_output_tokens"] or 0) for row in rows)
    found = (
        f"{status['scored']} valid verdicts of {len(rows)}; grades {labels}; failed {dict(reasons)}; "
        f"{status['not_applicable']} not applicable; {tokens} tokens"
    )
    return _need(status["scored"] > 0 and None not in reasons, found)


def _drifted(run: Run) -> str:
    row = run.watch.finding
    if row is None:
        raise NotSo("no finding names tenant and prompt version; " + _all_drift(run))
    detail = run.service.get(f"/api/v1/drift/{row['drift_id']}")
    change = run.traffic.began["new prompt"]
    after = run.watch.first.get(CONFIRMED, run.watch.first.get(SUSPECTED, 0.0)) - change
    return _need(
        bool(detail["evidence"]),
        f"{row['signal']} in {row['slice']} {row['state']} {after:.0f} s after the change: "
        f"{row['reference_mean']:.2f} → {row['current_mean']:.2f}, effect {row['effect_size']:+.2f} "
        f"[{row['effect_low']:+.2f}, {row['effect_high']:+.2f}], p {row['p_value']:.1e}, n {row['n_current']}; "
        + _all_drift(run),
    )


def _all_drift(run: Run) -> str:
    states = Counter(row["state"] for row in run.service.get("/api/v1/drift?limit=1000")["drift"])
    return f"series by state now {dict(states)}"


def _alerted(run: Run) -> str:
    began, calm, first = run.traffic.began["overload"], run.traffic.began["calm"], run.watch.first
    found = ", ".join(f"{name} {first[name] - began:+.0f} s" for name in (PENDING, FIRING, INCIDENT) if name in first)
    pages = run.watch.pages()
    ends = [datetime.fromisoformat(each["ended_at"]).timestamp() for each in pages if each["ended_at"]]
    found += f", ended {max(ends) - began:+.0f} s" if ends else ""
    times = f"; {len(pages)} incidents, because it came and went" if len(pages) > 1 else ""
    seen = all(name in first for name in (PENDING, FIRING, INCIDENT))
    ended = run.watch.over and max(ends) > calm
    return _need(seen and ended, f"from the overload's start: {found or 'nothing'}{times}")


def _incident(run: Run) -> str:
    pages = run.watch.pages()
    if not pages:
        raise NotSo("none")
    chosen = pages[-1]
    context = run.service.get(f"/api/v1/incidents/{chosen['incident_id']}")["context"]
    queue = max((state["requests_waiting"] or 0 for state in context["engines_at_notification"]), default=0)
    others = Counter(each["alertname"] for each in run.watch.incidents() if each["alertname"] != PAGE)
    return _need(queue >= LONG_QUEUE, f"{queue:.0f} waited at its notification; other incidents {dict(others)}")


def _explained(run: Run) -> str:
    path = f"/api/v1/requests?service={SUPPORT}&status=ok&sort=time_to_first_token&limit=1"
    worst = run.service.get(path)["requests"][0]
    view = run.service.get(f"/api/v1/requests/{worst['trace_id']}")
    (request,) = view["requests"]
    (target,) = request["engine"]["targets"]
    queue = target["lifetime"].get("max_requests_waiting", 0)
    vantages = sorted(span["vantage"] for span in view["spans"] if span["kind"] == "llm")
    found = (
        f"first token after {request['time_to_first_token_s']:.1f} s, {request['engine_queue_time_s']:.1f} s of it in "
        f"the queue, where up to {queue:.0f} waited; engine found by {request['engine']['by']}; spans {vantages}"
    )
    queued = request["engine_queue_time_s"] > 2 and queue >= LONG_QUEUE
    return _need(queued and request["engine"]["certain"] and vantages == ["client", "engine"], found)


def _no_echo(run: Run) -> str:
    first, second = run.own_spans
    return _need(0 < second <= 1.5 * first + 10, f"{first:.0f} own spans in an idle period, {second:.0f} in the next")


def _nothing_lost(run: Run) -> str:
    lost = {
        name: run.watch.value(f"sum({expression}) or vector(0)")
        for name, expression in {
            "spans rejected, refused or failed": 'tidegauge_ingest_spans_total{status=~"rejected|overloaded|failed"}',
            "errors of loops": "tidegauge_loop_errors_total",
            "failed rounds of drift": 'tidegauge_drift_rounds_total{outcome="error"}',
        }.items()
    }
    return _need(not any(lost.values()), ", ".join(f"{value:.0f} {name}" for name, value in lost.items()))


CHECKS: dict[str, Callable[[Run], str]] = {
    "every request is stored once": _stored,
    "client and engine spans pair": _paired,
    "cheap evaluators score all": _scored,
    "refusals by prompt version": _refusals,
    "the judge's verdicts": _judged,
    "drift names tenant and prompt": _drifted,
    "alert becomes an incident": _alerted,
    "incident holds the queue": _incident,
    "a slow request is explained": _explained,
    "own traces do not echo": _no_echo,
    "nothing was lost on the way": _nothing_lost,
}


def _requests(service: RunningService) -> Iterator[dict[str, Any]]:
    for name in (SUPPORT, EXTRACTOR):
        yield from _pages(service, "requests", "requests", service=name)


def _pages(running: RunningService, route: str, key: str, **filters: str) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    for _ in range(1000):
        asked = {**filters, "limit": "1000", **({"cursor": cursor} if cursor else {})}
        page = running.get(f"/api/v1/{route}?{urllib.parse.urlencode(asked)}")
        yield from page[key]
        cursor = page["next_cursor"]
        if cursor is None:
            return
    raise NotSo(f"{route}: pages without end")


def idle_spans(service: RunningService, seconds: float) -> float:
    """Spans stored within so many seconds, when nobody asks anything."""
    before = _spans(service)
    time.sleep(seconds)
    return _spans(service) - before


def _spans(service: RunningService) -> float:
    return service.metric("tidegauge_ingest_spans_total", status="stored")
