"""Looks at a run while it goes on, as the people on call would: when did which fact first show?"""

import time
from typing import Any

from tests.binaries import alert_states, query
from tests.e2e.service_kit import RunningService
from tests.e2e.vllm_load import CHANGED_TENANT

PAGE = "LLMEngineQueueLong"
SUSPECTED, CONFIRMED, GONE = "drift suspected", "drift confirmed", "drift resolved"
PENDING, FIRING, INCIDENT, RESOLVED = "alert pending", "alert firing", "incident", "incident resolved"


class Watch:
    """`first` holds the unix time at which each fact was first seen; `finding` the expected drift finding.

    `over` says whether there was an incident and none is open.
    """

    def __init__(self, service: RunningService, prometheus_url: str) -> None:
        self.first: dict[str, float] = {}
        self.finding: dict[str, Any] | None = None
        self.over = False
        self._service = service
        self._prometheus = prometheus_url

    def look(self) -> list[str]:
        """What was not there before; what does not answer in time is looked at the next time."""
        seen: list[str] = []
        for part in (self._alerts, self._incidents, self._drift):
            try:
                seen += part()
            except OSError:
                continue
        fresh = [name for name in seen if name not in self.first]
        for name in fresh:
            self.first[name] = time.time()
        return fresh

    def waiting(self) -> float:
        """The engine's queue now, as Prometheus has it."""
        return self.value("sum(llm_engine_requests_waiting) or vector(0)")

    def value(self, expression: str) -> float:
        """The one value of a PromQL expression; NaN where it finds nothing."""
        found = query(self._prometheus, expression)
        return float(found[0]["value"][1]) if found else float("nan")

    def _alerts(self) -> list[str]:
        states = alert_states(self._prometheus, PAGE)
        return [name for state, name in (("pending", PENDING), ("firing", FIRING)) if state in states]

    def _incidents(self) -> list[str]:
        pages = self.pages()
        self.over = bool(pages) and all(each["status"] == "resolved" for each in pages)
        return [INCIDENT] * bool(pages) + [RESOLVED] * self.over

    def _drift(self) -> list[str]:
        """The finding's states; kept as it was at its strongest, because it ends with the roll-back."""
        seen = []
        for row in self._service.get("/api/v1/drift?limit=1000")["drift"]:
            if row["signal"] != "refusal" or not names_the_change(row["slice"]):
                continue
            name = {"suspected": SUSPECTED, "confirmed": CONFIRMED, "resolved": GONE}.get(row["state"])
            if name in (SUSPECTED, CONFIRMED):
                self.finding = row
            if name is not None and (name != GONE or self.finding is not None):
                seen.append(name)
        return seen

    def pages(self) -> list[dict[str, Any]]:
        """Incidents of the overload."""
        return [each for each in self.incidents() if each["alertname"] == PAGE]

    def incidents(self) -> list[dict[str, Any]]:
        """All incidents."""
        found: list[dict[str, Any]] = self._service.get("/api/v1/incidents?limit=1000")["incidents"]
        return found


def names_the_change(label: str) -> bool:
    """Whether a slice is that of the changed tenant's new prompt version."""
    return {f"tenant={CHANGED_TENANT}", "prompt_version=2"} <= set(label.split(","))
