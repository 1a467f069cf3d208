"""The demo: the service, fed with a recording, and a summary of what it found."""

import asyncio
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import alerts.build
from alerts import backtest
from evals.drift.findings import findings
from service.config import Config
from service.demo_summary import latency
from service.incidents import Alert
from service.replay.driver import Replay
from service.replay.recording import Recording
from service.replay.stage import ServiceStage, TimeShift
from service.runtime import Service

ALERT_INTERVAL_SECONDS = 5.0


def shipped_recording() -> Path:
    """The recording that comes with the package."""
    return Path(str(files("service"))) / "recordings" / "production"


@dataclass
class Demo:
    """A service and the replay that feeds it."""

    service: Service
    replay: Replay
    stage: ServiceStage
    recording: Recording
    alerts: list[dict[str, Any]] | None = None
    alerts_missing: str | None = None

    @classmethod
    def prepare(cls, config: Config, recording: Recording, speed: float) -> "Demo":
        """Opens the store and lays the recording's times to now."""
        replay = Replay(recording, speed)
        shift = TimeShift()
        service = Service(config, replay.clock, shift)
        return cls(service, replay, ServiceStage(service, recording, shift), recording)

    async def run(self) -> None:
        """Replays to the end, then asks a real Prometheus which of the generated rules would have fired."""
        await self.replay.run(self.stage, self.stage.rounds())
        await self.evaluate_alerts()

    async def evaluate_alerts(self) -> None:
        """Evaluates the generated rules over what `/metrics` has shown so far, and tells the service who fired."""
        try:
            spans = await asyncio.to_thread(self._fired)
        except backtest.BacktestUnavailableError as error:
            self.alerts, self.alerts_missing = None, str(error)
            return
        self.alerts, self.alerts_missing = [_alert(span) for span in spans], None
        # No Alertmanager runs here: its notifications are taken the way its webhook's are.
        await asyncio.to_thread(self.service.incidents.take, [_notification(span) for span in spans])

    def _fired(self) -> tuple[backtest.AlertSpan, ...]:
        settings = self.service.config.alert_settings()
        rules = alerts.build.generated_rules(settings)
        with tempfile.TemporaryDirectory(prefix="tidegauge-demo-") as directory:
            path = Path(directory) / "recording.om"
            self.stage.history.write(path)
            report = backtest.run(path, rules, ALERT_INTERVAL_SECONDS)
        return report.spans

    def findings(self) -> list[dict[str, Any]]:
        """What has drifted so far."""
        return findings(self.service.drift.current())

    def summary(self) -> dict[str, Any]:
        """What came in, what drifted, what fired; times as they were moved."""
        counts = self.service.reads.query("counts")[0]
        end = self.replay.start + self.replay.progress.length
        return {
            "requests": counts["requests"],
            "failed_requests": counts["failed_requests"],
            "spans": counts["spans"],
            "scores": counts["scores"],
            "engine_ticks": counts["engine_ticks"],
            "gpu_ticks": counts["gpu_ticks"],
            "refused_exports": self.stage.refused,
            "started": _iso(self.replay.start),
            "moved_by_seconds": round(self.replay.shift, 3),
            "findings": self.findings(),
            "latency": latency(self.service.reads, self.replay.start, end),
            "alerts": self.alerts,
            "alerts_missing": self.alerts_missing,
        }


def _alert(span: backtest.AlertSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "severity": span.severity,
        "labels": dict(span.labels),
        "summary": span.annotations.get("summary"),
        "pending": _iso(span.pending_since),
        "started": _iso(span.started),
        "ended": _iso(span.ended) if span.ended is not None else None,
    }


def _notification(span: backtest.AlertSpan) -> Alert:
    ended = span.ended is not None
    return Alert.model_validate(
        {
            "status": "resolved" if ended else "firing",
            "labels": dict(span.labels),
            "annotations": dict(span.annotations),
            "startsAt": _iso(span.started),
            "endsAt": _iso(span.ended) if span.ended is not None else None,
        }
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
