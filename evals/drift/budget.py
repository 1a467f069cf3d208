"""How one number, the false pages that are affordable, becomes the threshold of every test.

`false_pages_per_30_days` is the expected number of confirmed findings in any 30 days in which nothing changed.  Half
of it pays for trailing rounds, half for new values.

- Trailing rounds.  Each round rejects by Benjamini-Hochberg at `half / rounds per 30 days`, over all its tests
  together.  Without a change the probability that a round rejects anything is at most that, so the expected number of
  rounds with a false finding is at most the half, however the rounds overlap.
- New values.  A comparison of a new value with its predecessor is a series of looks at 30, 60, 120, ... rows.
  The k-th series that began within 30 days may spend `half / N` for k up to N, then `half * N / (k (k - 1))`, with half
  of each sum, so that all of them together spend the half at most, however many come.  N is
  `new_values_per_30_days` times the signals.  The first five looks of a series may spend a sixth of it each, all
  others together the last sixth (`look_share`).

Both hold as far as the p-values do: exact for rates, conservative for numbers with ties; see `docs/drift.md`.

The weaker level, *suspected*, never pages: 0.001 a trailing round, 0.05 a series.
"""

from dataclasses import dataclass

from evals.drift.settings import MONTH, DriftSettings

SUSPECTED_ROUND = 1e-3
SUSPECTED_SERIES = 0.05
EVEN_LOOKS = 5


@dataclass(frozen=True)
class Budget:
    """Levels of all tests; `pages` is the budget of false pages per 30 days."""

    pages: float
    rounds: float
    series: int

    @property
    def trailing_level(self) -> float:
        """Level of one trailing round."""
        return min(self.pages / 2 / self.rounds, 0.05)

    def series_level(self, number: int) -> float:
        """What the `number`-th series of the last 30 days (from 1) may spend; summed over all, half the budget."""
        half = self.pages / 4
        level = half / self.series if number <= self.series else half * self.series / (number * (number - 1))
        return min(level, SUSPECTED_SERIES)

    def look_level(self, number: int, look: int) -> float:
        """What look `look` (from 1) of that series may spend."""
        return self.series_level(number) * look_share(look)

    def pages_needed(self, p_value: float, level: float) -> float | None:
        """Budget at which a test with this p-value would be confirmed; None if no budget pays for it."""
        needed = p_value / level * self.pages if level > 0 else float("inf")
        return needed if needed < 1e6 else None


def look_share(look: int) -> float:
    """Part of a series' level that look `look` (from 1) may spend; they add up to 1."""
    # Changes that matter show between 30 and 480 rows, at the first five looks.
    return 1 / 6 if look <= EVEN_LOOKS else 1 / 6 / ((look - EVEN_LOOKS) * (look - EVEN_LOOKS + 1))


def suspected_look(look: int) -> float:
    """The weaker level of look `look` (from 1)."""
    return SUSPECTED_SERIES * look_share(look)


def budget_of(settings: DriftSettings) -> Budget:
    """The budget that settings ask for."""
    series = settings.new_values_per_30_days * max(len(settings.signals), 1)
    return Budget(settings.false_pages_per_30_days, MONTH / settings.round, series)
