"""Makes the driver's counters monotonic: across wraps, driver reloads and GPU resets."""

from dataclasses import dataclass, field, replace
from functools import cache

from catalog.family import Kind, families
from catalog.gpu import GpuReading, gpu_readings
from collector.gpu.readings import Reading

# Past this gap between two looks the last one's rate says nothing about what was moved in between.
MAX_RATE_GAP_S = 10.0


@dataclass(slots=True)
class _Gpu:
    at: float
    raw: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)


class Counters:
    """Remembers each GPU's counters; the first value seen is taken as it is, later ones only add to it."""

    def __init__(self) -> None:
        self._gpus: dict[str, _Gpu] = {}

    def correct(self, reading: Reading, at: float) -> Reading:
        """`reading` with counters that never fall; `at` is its unix time."""
        known = self._gpus.setdefault(reading.gpu, _Gpu(at))
        seconds = at - known.at
        restarted = _restarted(reading, known)
        totals: dict[str, float] = {}
        for entry in _counters():
            raw = getattr(reading, entry.name)
            if raw is None:
                continue
            totals[entry.name] = self._advance(entry, known, raw, restarted, _expected(entry, reading, seconds))
        if totals:
            known.at = at
        return replace(reading, **totals)  # type: ignore[arg-type]

    @staticmethod
    def _advance(entry: GpuReading, known: _Gpu, raw: float, restarted: bool, expected: float | None) -> float:
        last = known.raw.get(entry.name)
        if last is None:
            total = raw
        else:
            total = known.total[entry.name] + (raw if restarted else moved(last, raw, entry.wraps, expected))
        known.raw[entry.name] = raw
        known.total[entry.name] = total
        return total


def moved(last: float, raw: float, wraps: int, expected: float | None) -> float:
    """How far a counter went from `last` to `raw`.

    A counter that `wraps` may have gone round several times: `expected`, a measured rate's amount, tells how often,
    right while it is off by less than half a round.  Without it the fewest rounds are assumed.  A counter past its
    supposed width is wider than thought.  Any other fall is a reset, and what it shows was counted since.

    >>> moved(100, 150, 2**32, None), moved(2**32 - 6, 4, 2**32, None), moved(0, 10, 2**32, 5.1 * 2**32)
    (50, 10, 21474836490)
    """
    if not wraps or max(last, raw) >= wraps:
        return raw - last if raw >= last else raw
    once = (raw - last) % wraps
    return once if expected is None else once + wraps * max(round((expected - once) / wraps), 0)


def _restarted(reading: Reading, known: _Gpu) -> bool:
    """True if the driver was reloaded or the GPU reset: its energy counter alone never wraps."""
    last = known.raw.get("energy_joules")
    return last is not None and reading.energy_joules is not None and reading.energy_joules < last


def _expected(entry: GpuReading, reading: Reading, seconds: float) -> float | None:
    rate = getattr(reading, entry.rate) if entry.rate else None
    return float(rate * seconds) if rate is not None and 0 < seconds <= MAX_RATE_GAP_S else None


@cache
def _counters() -> tuple[GpuReading, ...]:
    """The readings that are counters of the driver's; XIDs we count ourselves."""
    return tuple(
        entry
        for entry in gpu_readings()
        if entry.field and entry.family and families()[entry.family].kind is Kind.COUNTER
    )
