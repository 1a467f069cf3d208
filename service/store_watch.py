"""Looks after the store between commits: its troubles as metrics, and retention when its time has come."""

from catalog.clock import Clock
from catalog.instruments import Instruments
from store.database import Database
from store.health import Trouble
from store.retention import Retention
from store.settings import RetentionSettings


class StoreWatch:
    """Sets the gauges at each `step`, and runs a round of retention when one is due."""

    def __init__(self, database: Database, clock: Clock, metrics: Instruments, settings: RetentionSettings) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._every = settings.every
        self._retention = Retention(database, clock, metrics, settings)
        self._due = 0.0

    def problems(self) -> list[str]:
        """Why nothing is stored now, for `/readyz`."""
        problem = self._database.health.problem()
        return [f"store: {problem.message}"] if problem else []

    def warnings(self) -> list[str]:
        """What is wrong although rows are stored."""
        corrupt = self._database.health.corrupt
        return [f"store: {corrupt.message}"] if corrupt else []

    def step(self) -> None:
        """Raises duckdb.Error if retention fails; the next step tries again."""
        present = {problem.trouble for problem in self._database.health.problems()}
        for trouble in Trouble:
            self._metrics.gauges.tidegauge_store_trouble.labels(trouble.value).set(float(trouble in present))
        if self._clock.now() >= self._due:
            self._retention.step()
            self._due = self._clock.now() + self._every
