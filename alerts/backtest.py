"""Says when each rule would have fired: over a recording, or over what a Prometheus holds.

A recording is an OpenMetrics file with timestamps.  A real Prometheus evaluates the rules' expressions as they were
generated; the pending and firing states are kept here as Prometheus' rule manager keeps them.
"""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerts.build import GeneratedRule
from alerts.local_prometheus import PrometheusFailedError, prometheus_over
from alerts.promtool import BinaryMissingError
from alerts.settings import Severity
from alerts.templates import render

# Prometheus answers no range query of more than 11,000 steps.
STEPS_PER_QUERY = 10_000
QUERY_SECONDS = 120.0
# Blocks made of a recording have no staleness markers; so a series ends this long after its last sample.
LOOKBACK = "30s"
NOISY_PAGES = 3
NOISY_PAGES_PER_DAY = 1.0


class BacktestUnavailableError(RuntimeError):
    """The rules cannot be evaluated here; the text says why and what to do."""


@dataclass(frozen=True)
class AlertSpan:
    """One time that an alert fired, in Unix seconds; `ended` is None if it still did at the end."""

    name: str
    severity: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pending_since: float
    started: float
    ended: float | None
    value: float


@dataclass(frozen=True)
class BacktestReport:
    """What fired between `start` and `end`, evaluated every `interval_seconds`, in the order of start."""

    start: float
    end: float
    interval_seconds: float
    rules: int
    spans: tuple[AlertSpan, ...]

    @property
    def noisy(self) -> tuple[str, ...]:
        """Rules that paged more than once a day, and more than three times."""
        days = (self.end - self.start) / 86400
        pages = Counter(span.name for span in self.spans if span.severity == Severity.PAGE)
        allowed = max(NOISY_PAGES, days * NOISY_PAGES_PER_DAY)
        return tuple(sorted(name for name, count in pages.items() if count > allowed))


def run(
    recording: Path, rules: Sequence[GeneratedRule], interval_seconds: float = 5.0, lookback: str = LOOKBACK
) -> BacktestReport:
    """Evaluates the rules over a recording.

    Raises BacktestUnavailableError if Prometheus is not installed or cannot read the recording.
    """
    start, end = extent(recording)
    try:
        with prometheus_over(recording, lookback) as url:
            return run_against(url, rules, start, end, interval_seconds)
    except (BinaryMissingError, PrometheusFailedError) as error:
        raise BacktestUnavailableError(str(error)) from error


def run_against(
    url: str, rules: Sequence[GeneratedRule], start: float, end: float, interval_seconds: float = 60.0
) -> BacktestReport:
    """Evaluates the rules over what the Prometheus at `url` holds between two Unix times.

    A rule whose `for:` is shorter than the interval needs two looks: coarse steps find fewer short alerts, never more.
    """
    if interval_seconds <= 0 or end < start:
        raise ValueError(f"cannot evaluate from {start} to {end} every {interval_seconds} s")
    spans = [
        span for rule in rules for span in spans_of(rule, _evaluations(url, rule.expr, start, end, interval_seconds))
    ]
    spans.sort(key=lambda span: (span.started, span.name, sorted(span.labels.items())))
    return BacktestReport(start, end, interval_seconds, len(rules), tuple(spans))


Labels = frozenset[tuple[str, str]]


@dataclass
class _Active:
    """An alert that is pending or fires."""

    since: float
    fired: float | None = None
    value: float = math.nan
    kept_since: float | None = None  # no longer true since then, and fires on for a while


def spans_of(rule: GeneratedRule, evaluations: Iterator[tuple[float, Mapping[Labels, float]]]) -> Iterator[AlertSpan]:
    """The rule's alerts from its expression's results, in the order of time."""
    active: dict[Labels, _Active] = {}
    for now, result in evaluations:
        for labels in [labels for labels in active if labels not in result]:
            gone = active[labels]
            gone.kept_since = now if gone.kept_since is None else gone.kept_since
            if gone.fired is not None and now - gone.kept_since < rule.keep_seconds:
                continue
            del active[labels]
            if gone.fired is not None:
                yield _span(rule, labels, gone, now)
        for labels, value in result.items():
            alert = active.setdefault(labels, _Active(now))
            alert.kept_since = None
            if alert.fired is None and now - alert.since >= rule.hold_seconds:
                alert.fired, alert.value = now, value
    for labels, alert in active.items():
        if alert.fired is not None:
            yield _span(rule, labels, alert, None)


def _span(rule: GeneratedRule, labels: Labels, alert: _Active, ended: float | None) -> AlertSpan:
    assert alert.fired is not None
    own = {name: value for name, value in labels if name != "__name__"}
    every = {**own, **rule.labels, "alertname": rule.name}
    annotations = {
        name: render(template, every, alert.value, alert.fired) for name, template in rule.annotations.items()
    }
    return AlertSpan(
        name=rule.name,
        severity=rule.labels.get("severity", ""),
        labels=dict(sorted(every.items())),
        annotations=annotations,
        pending_since=alert.since,
        started=alert.fired,
        ended=ended,
        value=alert.value,
    )


def _evaluations(
    url: str, expr: str, start: float, end: float, interval: float
) -> Iterator[tuple[float, Mapping[Labels, float]]]:
    """The expression's result at each step, in queries that Prometheus takes."""
    steps = math.floor((end - start) / interval + 1e-9) + 1
    for first in range(0, steps, STEPS_PER_QUERY):
        last = min(first + STEPS_PER_QUERY, steps) - 1
        begin = start + first * interval
        found: dict[int, dict[Labels, float]] = {}
        for series in _query_range(url, expr, begin, start + last * interval, interval):
            labels = frozenset(series["metric"].items())
            for moment, value in series["values"]:
                found.setdefault(round((float(moment) - begin) / interval), {})[labels] = float(value)
        for step in range(last - first + 1):
            yield begin + step * interval, found.get(step, {})


def _query_range(url: str, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
    body = urllib.parse.urlencode(
        {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
    ).encode()
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/query_range", body, timeout=QUERY_SECONDS) as answer:
            document = json.load(answer)
    except urllib.error.HTTPError as error:
        reason = error.read(2000).decode(errors="replace")
        raise BacktestUnavailableError(f"Prometheus at {url} answered {error.code}: {reason}") from error
    except (OSError, ValueError) as error:
        raise BacktestUnavailableError(f"Prometheus at {url} does not answer as one: {error}") from error
    result: list[dict[str, Any]] = document["data"]["result"]
    return result


def extent(recording: Path) -> tuple[float, float]:
    """Unix times of the recording's first and last sample."""
    first, last = math.inf, -math.inf
    with recording.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") or not line.strip():
                continue
            try:
                moment = float(line.split(" # ", 1)[0].rsplit(None, 1)[-1])
            except ValueError:
                raise BacktestUnavailableError(f"{recording.name}: no timestamp at the end of {line[:80]!r}") from None
            first, last = min(first, moment), max(last, moment)
    if first > last:
        raise BacktestUnavailableError(f"{recording.name} has no samples")
    return first, last
