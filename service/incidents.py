"""Alertmanager's notifications as incidents, each with a snapshot of what was going on when it began."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from service.api.answers import dumps
from service.context import Context
from store.batch import Batch
from store.reads_pages import Pages
from store.scope import EVERYTHING, Scope, Selection
from store.tables import INCIDENTS

MAX_ALERTS = 1000
# Snapshots take a few queries each; past this many in one notification, the rest say so.
MAX_SNAPSHOTS = 20
BEFORE_SECONDS = 300.0
WORST = 10
MAX_DRIFT = 20
MAX_COUNTS = 20
MAX_ENGINES = 20
COMMIT_TIMEOUT_SECONDS = 30.0
Value = Annotated[str, StringConstraints(max_length=4000)]
Labels = Annotated[dict[Annotated[str, StringConstraints(max_length=200)], Value], Field(max_length=64)]
WORST_COLUMNS = (
    "trace_id start_time duration_s time_to_first_token_s engine_time_to_first_token_s engine_queue_time_s tenant "
    "service request_model prompt_version status error_type input_tokens output_tokens"
).split()
ENGINE_COLUMNS = (
    "time target engine model instance requests_running requests_waiting kv_cache_usage_ratio preemptions"
).split()
DRIFT_COLUMNS = (
    "drift_id signal slice detector state since effect_size effect_low effect_high effect_unit p_value "
    "current_mean reference_mean"
).split()


class Alert(BaseModel):
    """One alert of a notification (Alertmanager's webhook, version 4)."""

    model_config = ConfigDict(frozen=True)

    status: Literal["firing", "resolved"]
    labels: Labels
    annotations: Labels = Field(default_factory=dict)
    starts_at: AwareDatetime = Field(alias="startsAt")
    ends_at: AwareDatetime | None = Field(None, alias="endsAt")
    fingerprint: Annotated[str, StringConstraints(max_length=128)] = ""
    generator_url: Value = Field("", alias="generatorURL")

    def identity(self) -> str:
        """The alert's fingerprint, or one of its labels where an old Alertmanager sends none."""
        text = json.dumps(self.labels, sort_keys=True)
        return self.fingerprint or hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]

    def incident_id(self) -> str:
        """The same for every notification of the alert, from its firing to its resolution."""
        text = f"{self.identity()}|{self.starts_at.astimezone(UTC).isoformat()}"
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]


class Notification(BaseModel):
    """What Alertmanager posts; members that we do not use are allowed."""

    version: Literal["4"]
    status: Literal["firing", "resolved"]
    alerts: Annotated[list[Alert], Field(max_length=MAX_ALERTS)]


class Incidents:
    """Keeps incidents; safe to call from any thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pages = Pages(context.reads)
        # A resolution replaces the row that its firing wrote: one notification at a time.
        self._lock = threading.Lock()

    def take(self, alerts: Sequence[Alert]) -> list[str]:
        """Stores a notification's alerts; gives the incidents' ids after the commit.

        Raises what the writer raises.
        """
        with self._lock:
            snapshots: dict[Any, dict[str, Any]] = {}
            rows: dict[str, dict[str, Any]] = {}
            for alert in alerts:
                row = self._row(alert, rows.get(alert.incident_id()), snapshots)
                rows[row["incident_id"]] = row
            if rows:
                table = pa.Table.from_pylist(list(rows.values()), schema=INCIDENTS)
                self._context.writer.submit(Batch({"incidents": table})).result(COMMIT_TIMEOUT_SECONDS)
            for alert in alerts:
                self._context.metrics.counters.tidegauge_incidents_total.labels(status=alert.status).inc()
            return list(rows)

    def _row(
        self, alert: Alert, pending: dict[str, Any] | None, snapshots: dict[Any, dict[str, Any]]
    ) -> dict[str, Any]:
        incident_id = alert.incident_id()
        known = pending or self._pages.incident(EVERYTHING, incident_id)
        # Notifications may arrive out of order: what has ended stays ended.
        resolved = alert.status == "resolved" or (known is not None and known["status"] == "resolved")
        ended = known["ended_at"] if known else None
        if alert.status == "resolved":
            ended = alert.ends_at or datetime.fromtimestamp(self._context.clock.now(), UTC)
        context = _text(known["context"]) if known else dumps(self._snapshot(alert, snapshots)).decode()
        return {
            "incident_id": incident_id,
            "fingerprint": alert.identity(),
            "alertname": alert.labels.get("alertname", "unnamed"),
            "severity": alert.labels.get("severity"),
            "status": "resolved" if resolved else "firing",
            "labels": dumps(alert.labels).decode(),
            "annotations": dumps({**alert.annotations, "generator_url": alert.generator_url}).decode(),
            "started_at": alert.starts_at,
            "ended_at": ended,
            "received_at": known["received_at"] if known else datetime.fromtimestamp(self._context.clock.now(), UTC),
            "tenant": alert.labels.get("tenant") or None,
            "context": context,
        }

    def _snapshot(self, alert: Alert, snapshots: dict[Any, dict[str, Any]]) -> dict[str, Any]:
        labels = alert.labels
        minute = int(alert.starts_at.timestamp() // 60)
        key = (*(labels.get(name) for name in ("tenant", "model", "service", "target")), minute)
        if key not in snapshots:
            if len(snapshots) >= MAX_SNAPSHOTS:
                return {"note": f"no snapshot: {MAX_SNAPSHOTS} others were taken for the same notification"}
            snapshots[key] = snapshot(self._context, labels, alert.starts_at.timestamp())
        return snapshots[key]


def snapshot(context: Context, labels: Mapping[str, str], started: float) -> dict[str, Any]:
    """What was going on from five minutes before the alert's start until now, as far as its labels concern it.

    Of an alert that names a tenant, only that tenant's requests, so that a key of the tenant may see it.
    """
    pages = Pages(context.reads)
    now = max(context.clock.now(), started)
    start, end = started - BEFORE_SECONDS, now + 1.0
    scope = Scope(frozenset({labels["tenant"]})) if labels.get("tenant") else EVERYTHING
    filters = {name: labels[name] for name in ("model", "service") if labels.get(name)}
    selection = Selection(filters, start, end)
    worst = pages.requests(
        scope, Selection(filters), sort="time_to_first_token", limit=WORST, open_in=(start, end),
        target=labels.get("target"),
    )  # fmt: skip
    engines = context.reads.engine_state_at(at=[started, now], target=labels.get("target"), model=labels.get("model"))
    drift = [row for row in pages.drift(scope, since=start - 86400) if row["state"] in ("suspected", "confirmed")]
    by = "service" if scope.tenants else "tenant"
    return {
        "from": datetime.fromtimestamp(start, UTC),
        "to": datetime.fromtimestamp(end, UTC),
        "worst_requests": _some(worst, WORST_COLUMNS),
        "engines_at_start": _some(_at(engines, started), ENGINE_COLUMNS)[:MAX_ENGINES],
        "engines_at_notification": _some(_at(engines, now), ENGINE_COLUMNS)[:MAX_ENGINES],
        "active_drift": _some(drift, DRIFT_COLUMNS)[:MAX_DRIFT],
        "requests_by": by,
        "requests": pages.activity(scope, selection, by)[:MAX_COUNTS],
    }


def _at(rows: Sequence[Mapping[str, Any]], time: float) -> list[Mapping[str, Any]]:
    return [row for row in rows if abs(row["moment"].timestamp() - time) < 1e-3]


def _some(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in columns if row.get(name) is not None} for row in rows]


def _text(value: Any) -> str | None:
    """JSON text of what the store gave back parsed."""
    return value if value is None or isinstance(value, str) else dumps(value).decode()
