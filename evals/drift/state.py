"""The state of a signal on a slice, from round to round, and how it is stored."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from evals.drift.comparison import Comparison, as_row
from store.tables import DRIFT_RESULTS


class Phase(StrEnum):
    """Where a finding stands; only `confirmed` may page."""

    NONE = "none"
    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    RESOLVED = "resolved"


class Against(StrEnum):
    """What the current window is compared with."""

    TRAILING = "trailing"
    PREDECESSOR = "predecessor"


RANK = {Phase.NONE: 0, Phase.RESOLVED: 0, Phase.SUSPECTED: 1, Phase.CONFIRMED: 2}


@dataclass(frozen=True)
class Period:
    """Half-open, unix seconds."""

    start: float
    end: float


@dataclass
class State:
    """A signal on a slice: the last comparison, and the finding that it may be.

    `since` is when the change began, `reference` the period that it is held against, `peak` the worst phase so far.
    `notes` is stored with the evidence: the thresholds, the predecessor, why it ended.
    """

    signal: str
    values: Mapping[str, str]
    slice: str
    against: Against
    phase: Phase = Phase.NONE
    peak: Phase = Phase.NONE
    since: float | None = None
    reference: Period | None = None
    calm: int = 0
    ended: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies a state."""
        return self.signal, self.slice, str(self.against)

    @property
    def active(self) -> bool:
        """Whether something is suspected or confirmed now."""
        return RANK[self.phase] > 0

    def raise_to(self, phase: Phase) -> None:
        """Goes up, never down."""
        if RANK[phase] > RANK[self.phase]:
            self.phase = phase
            self.peak = phase if RANK[phase] > RANK[self.peak] else self.peak
            self.calm, self.ended = 0, None

    def resolve(self, at: float, reason: str) -> None:
        """Ends the finding."""
        self.phase, self.ended = Phase.RESOLVED, at
        self.notes |= {"ended": moment(at).isoformat(), "reason": reason}

    def take(self, result: Comparison, threshold: float) -> None:
        """Keeps what a comparison said."""
        self.row = {**as_row(result), "q_threshold": threshold}


@dataclass(frozen=True)
class Round:
    """When a round was, and what it looked at."""

    at: float
    number: int
    window: Period
    reference: Period


def moment(seconds: float) -> datetime:
    """Unix seconds as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def table_of(states: list[tuple[State, Period]], this: Round) -> pa.Table:
    """Rows of `drift_results`, with the window that each state's comparison looked at."""
    return pa.Table.from_pylist([_row(state, window, this) for state, window in states], schema=DRIFT_RESULTS)


def _row(state: State, window: Period, this: Round) -> dict[str, Any]:
    reference = state.reference or this.reference
    identity = "|".join([*state.key, f"{this.at:.3f}"])
    return {
        "result_id": hashlib.sha256(identity.encode()).hexdigest()[:32],
        "round_id": f"round-{this.at:.3f}",
        "signal": state.signal,
        "slice": state.slice,
        "slice_values": json.dumps(state.values),
        "comparison": str(state.against),
        "round_time": moment(this.at),
        "window_start": moment(window.start),
        "window_end": moment(window.end),
        "reference_start": moment(reference.start),
        "reference_end": moment(reference.end),
        "reference": str(state.notes.get("reference", "the same slice before")),
        **state.row,
        "decision": "drift" if state.active else "none",
        "state": str(state.phase),
        "since": None if state.since is None else moment(state.since),
        "evidence": json.dumps({**state.evidence, "notes": state.notes, "resume": _resume(state)}, default=str),
    }


def _resume(state: State) -> dict[str, Any]:
    """What `restored` needs."""
    reference = None if state.reference is None else asdict(state.reference)
    return {"peak": state.peak, "calm": state.calm, "ended": state.ended, "since": state.since, "reference": reference}


def restored(row: Mapping[str, Any]) -> State:
    """The state that a row of `drift_results` was written from."""
    evidence = _parsed(row["evidence"])
    resume = evidence.pop("resume")
    numbers = ("detector n_current n_reference statistic p_value log_e_value q_threshold effect_size effect_low "
               "effect_high effect_unit current_mean reference_mean").split()  # fmt: skip
    return State(
        signal=row["signal"],
        values=_parsed(row["slice_values"]),
        slice=row["slice"],
        against=Against(row["comparison"]),
        phase=Phase(row["state"]),
        peak=Phase(resume["peak"]),
        since=resume["since"],
        reference=None if resume["reference"] is None else Period(**resume["reference"]),
        calm=resume["calm"],
        ended=resume["ended"],
        notes=evidence.pop("notes"),
        evidence=evidence,
        row={name: row[name] for name in numbers},
    )


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
