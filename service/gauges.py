"""Gauges of what the store knows: mean scores with their intervals, drift, and the store itself."""

import shutil
from collections.abc import Callable, Sequence

from catalog.clock import Clock
from catalog.instruments import Instruments
from evals.drift.state import Phase, State
from evals.estimates import summarize_sums
from store.database import Database
from store.reads import Reads
from store.scope import EVERYTHING, Selection

# Means over the last hour: long enough for an interval, short enough to show a change.
WINDOW_SECONDS = 3600.0
# (evaluator, model, tenant) triples served at most, those with the most scores first.
MAX_GROUPS = 500
GROUPS = ("evaluator", "model", "tenant")


class StoreGauges:
    """Sets the gauges at each `step`; a group that has gone quiet disappears."""

    def __init__(
        self,
        database: Database,
        reads: Reads,
        clock: Clock,
        metrics: Instruments,
        drift_states: Callable[[], Sequence[State]],
    ) -> None:
        self._database = database
        self._reads = reads
        self._clock = clock
        self._metrics = metrics
        self._drift_states = drift_states

    def step(self) -> None:
        """Reads the store and sets the gauges."""
        self._scores()
        self._drift()
        self._store()

    def _scores(self) -> None:
        gauges = self._metrics.gauges
        means = (
            (gauges.tidegauge_eval_score_mean, "mean"),
            (gauges.tidegauge_eval_score_mean_ci_low, "ci_low"),
            (gauges.tidegauge_eval_score_mean_ci_high, "ci_high"),
            (gauges.tidegauge_eval_score_samples, "n"),
        )
        recent = Selection(start=self._clock.now() - WINDOW_SECONDS)
        rows = summarize_sums(self._reads.score_sums(EVERYTHING, recent, GROUPS), GROUPS).to_pylist()
        rows = sorted(rows, key=lambda row: -row["n"])[:MAX_GROUPS]
        for gauge, column in means:
            gauge.clear()
            for row in rows:
                gauge.labels(*(row[name] or "" for name in GROUPS)).set(row[column])

    def _drift(self) -> None:
        gauges = self._metrics.gauges
        active = gauges.tidegauge_drift_active
        effect = gauges.tidegauge_drift_effect_size
        evidence = gauges.tidegauge_drift_log_e_value
        for gauge in (active, effect, evidence):
            gauge.clear()
        for state in self._drift_states():
            labels = (state.signal, state.slice, state.row.get("detector") or "")
            active.labels(*labels).set(float(state.phase is Phase.CONFIRMED))
            for gauge, column in ((effect, "effect_size"), (evidence, "log_e_value")):
                if state.row.get(column) is not None:
                    gauge.labels(*labels).set(state.row[column])

    def _store(self) -> None:
        gauges = self._metrics.gauges
        gauges.tidegauge_store_bytes.set(self._database.bytes())
        gauges.tidegauge_store_disk_free_bytes.set(shutil.disk_usage(self._database.directory).free)
