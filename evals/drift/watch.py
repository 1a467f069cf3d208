"""Trailing findings: held against the time before the change until they are over, and kept out of later references."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evals.drift.budget import Budget
from evals.drift.comparison import compare, evidence, minimum_effect, pair
from evals.drift.frame import Frame
from evals.drift.settings import DriftSettings, SignalSettings
from evals.drift.state import Against, Period, Phase, Round, State
from evals.drift.trailing import Found, Tested

Fetch = Callable[[SignalSettings, float, float], pa.Table]
Key = tuple[str, str, str]

# Below this p-value a result is stored with its evidence, whatever its state.
NOTEWORTHY = 0.01


@dataclass
class Explained:
    """Rows that a confirmed finding accounts for; `end` is None while it lasts."""

    signal: str
    values: Mapping[str, str]
    start: float
    end: float | None


class Watch:
    """Watches confirmed trailing findings."""

    def __init__(self, settings: DriftSettings, fetch: Fetch) -> None:
        self._settings = settings
        self._fetch = fetch
        self._references: dict[Key, pa.Table] = {}
        self._explained: dict[tuple[Key, float], Explained] = {}

    def step(
        self, signal: SignalSettings, frame: Frame, states: Mapping[Key, State], this: Round, rng: np.random.Generator
    ) -> list[tuple[State, Period]]:
        """Compares each confirmed finding's last window with the time before it began; resolves what is calm."""
        rows = []
        for state in states.values():
            if state.signal == signal.name and state.against is Against.TRAILING and state.phase is Phase.CONFIRMED:
                self._track(state, signal, frame, this, rng)
                rows.append((state, this.window))
        return rows

    def unexplained(self, frame: Frame, signal: SignalSettings) -> Frame:
        """The frame without the rows of confirmed findings: neither tested again nor anybody's reference."""
        drop = np.zeros(len(frame), dtype=bool)
        for each in self._explained.values():
            if each.signal == signal.name:
                rows = frame.matching(each.values)
                time = frame.time[rows]
                drop[rows[(time >= each.start) & (time < (np.inf if each.end is None else each.end))]] = True
        return Frame(frame.table.filter(pa.array(~drop)), signal) if drop.any() else frame

    def judge(self, state: State, tested: Tested, found: Found | None, budget: Budget, this: Round) -> State:
        """The state after a trailing test."""
        result = tested.result
        state.take(result, budget.trailing_level if found is None else found.threshold)
        state.evidence = evidence(result) if found is not None or result.p_value < NOTEWORTHY else {}
        if found is None:
            self._calm(state, this)
            return state
        state.since = found.since if state.since is None else min(state.since, found.since)
        state.notes.setdefault("opened", this.at)
        state.notes |= {
            "false_pages_per_30_days": budget.pages,
            "false_pages_per_30_days_needed": budget.pages_needed(result.p_value, found.threshold),
        }
        state.calm = 0
        state.raise_to(Phase.CONFIRMED if found.confirmed else Phase.SUSPECTED)
        if found.confirmed:
            state.reference = Period(state.since - self._settings.reference, state.since)
            self.restore(state)
        return state

    def unseen(self, states: Mapping[Key, State], tested: Iterable[Key], this: Round) -> list[State]:
        """Suspected findings that could not be tested this round grow calm."""
        seen = set(tested)
        missed = [
            state
            for state in states.values()
            if state.against is Against.TRAILING and state.phase is Phase.SUSPECTED and state.key not in seen
        ]
        for state in missed:
            self._calm(state, this)
        return missed

    def restore(self, state: State) -> None:
        """Takes a confirmed finding, or a resolved one whose rows may still be in a reference."""
        if state.against is Against.TRAILING and state.peak is Phase.CONFIRMED and state.since is not None:
            self._explained[(state.key, state.since)] = Explained(state.signal, state.values, state.since, state.ended)

    def _calm(self, state: State, this: Round) -> None:
        if state.phase is not Phase.SUSPECTED:
            return
        state.calm += 1
        if state.calm >= self._settings.calm_rounds:
            state.resolve(this.window.end, "not seen again")

    def _track(self, state: State, signal: SignalSettings, now: Frame, this: Round, rng: np.random.Generator) -> None:
        assert state.since is not None
        before = self._reference(state, signal)
        frame = Frame(pa.concat_tables([before, _from(now, this.window.start)]), signal)
        rows = frame.matching(state.values)
        border = int(np.searchsorted(frame.time[rows], max(state.since, this.window.start), side="left"))
        early = int(np.searchsorted(frame.time[rows], state.since, side="left"))
        current = rows[border:]
        result = None
        if early and len(current):
            result = compare(pair(frame, rows[:early], current, frame.cells()), self._settings.minimum_samples, rng)
        if result is not None:
            state.take(result, state.row["q_threshold"])
            state.evidence = evidence(result)
        calm = len(current) == 0 if result is None else abs(result.effect.size) < minimum_effect(frame)
        state.calm = state.calm + 1 if calm else 0
        if state.calm >= self._settings.calm_rounds:
            self._end(state, this)

    def _end(self, state: State, this: Round) -> None:
        """The window was calm for some rounds; what lies before the first of them is the finding's."""
        state.resolve(this.window.end, "back to what it was before")
        self._references.pop(state.key, None)
        self.restore(state)

    def _reference(self, state: State, signal: SignalSettings) -> pa.Table:
        if state.key not in self._references:
            assert state.reference is not None
            frame = Frame(self._fetch(signal, state.reference.start, state.reference.end), signal)
            self._references[state.key] = frame.table.take(pa.array(frame.matching(state.values)))
        return self._references[state.key]

    def forget(self, before: float) -> None:
        """Findings that ended before `before` are in no window any more."""
        self._explained = {key: each for key, each in self._explained.items() if each.end is None or each.end >= before}


def _from(frame: Frame, start: float) -> pa.Table:
    return frame.table.slice(int(np.searchsorted(frame.time, start, side="left")))
