"""What drifted, for people: one entry per drift, on the slice that explains it."""

from collections.abc import Iterable, Mapping
from typing import Any

from evals.drift.state import RANK, Against, Phase, State, moment, restored


def findings(results: Iterable[State | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Drifts that are or were at least suspected, confirmed and latest ones first.

    `results` are states (`DriftMonitor.current`) or rows of the query `drift_memory`, oldest first.  Each entry has
    `signal`, `slice` (values by dimension; empty for all requests), `start` and `end` (RFC 3339), `effect`,
    `interval`, `unit`, `state`, `peak`, `detector`, `comparison`, `p_value`, `log_e_value` and `evidence`.
    """
    states = [result if isinstance(result, State) else restored(result) for result in results]
    latest = {(state.key, state.notes.get("opened", state.since)): state for state in states if RANK[state.peak] > 0}
    kept = [state for state in latest.values() if not _is_echo(state, list(latest.values()))]
    kept.sort(key=lambda state: (-RANK[state.peak], -(state.since or 0.0), state.signal, state.slice))
    return [_entry(state) for state in kept]


def _is_echo(state: State, others: list[State]) -> bool:
    """Whether a wider or narrower trailing finding only shows a new value's own."""
    if state.against is not Against.TRAILING:
        return False
    return any(
        other.against is Against.PREDECESSOR
        and other.signal == state.signal
        and RANK[other.peak] >= RANK[state.peak]
        and _agree(state.values, other.values)
        and _overlap(state, other)
        for other in others
    )


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(name, value) == value for name, value in one.items())


def _overlap(one: State, other: State) -> bool:
    """Whether one began while the other lasted, or within its window after."""
    end = float("inf") if other.ended is None else other.ended
    return (other.since or 0.0) - 60.0 <= (one.since or 0.0) <= end


def _entry(state: State) -> dict[str, Any]:
    row = state.row
    return {
        "signal": state.signal,
        "slice": dict(state.values),
        "start": _text(state.since),
        "end": _text(state.ended) if state.phase is Phase.RESOLVED else None,
        "effect": row.get("effect_size"),
        "interval": [row.get("effect_low"), row.get("effect_high")],
        "unit": row.get("effect_unit"),
        "state": str(state.phase),
        "peak": str(state.peak),
        "detector": row.get("detector"),
        "comparison": str(state.against),
        "p_value": row.get("p_value"),
        "log_e_value": row.get("log_e_value"),
        "evidence": {
            **{name: row.get(name) for name in ("n_current", "n_reference", "current_mean", "reference_mean")},
            "threshold": row.get("q_threshold"),
            **state.evidence,
            **state.notes,
        },
    }


def _text(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds).isoformat().replace("+00:00", "Z")
