"""How many tokens the judge may use a day."""

from datetime import UTC, datetime, timedelta

from catalog.clock import Clock


class TokenBudget:
    """Tokens of a UTC day: reserved before a call by an estimate, settled after it by what was used.

    It can be passed only by as much as the calls in flight use more than their estimates.
    """

    def __init__(self, tokens_per_day: int, clock: Clock, used: int = 0) -> None:
        """`used` is what today's calls have used already, before a restart."""
        self._limit = tokens_per_day
        self._clock = clock
        self._used = used
        self._reserved = 0
        self._day = self._today()

    def _today(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def _turn(self) -> None:
        today = self._today()
        if today > self._day:
            self._day, self._used, self._reserved = today, 0, 0

    @property
    def remaining(self) -> int:
        """Tokens neither used nor reserved; 0 if the budget was passed."""
        self._turn()
        return max(self._limit - self._used - self._reserved, 0)

    def may_fit_soon(self, tokens: int) -> bool:
        """Whether `tokens` may be there once the calls in flight are settled, which use less than they reserve."""
        self._turn()
        return self._reserved > 0 and tokens <= self._limit - self._used

    def fits_a_day(self, tokens: int) -> bool:
        """Whether a whole day's budget would be enough."""
        return tokens <= self._limit

    def reserve(self, tokens: int) -> datetime | None:
        """Takes `tokens` off; None if they are not there, else what `settle` needs to know."""
        if tokens > self.remaining:
            return None
        self._reserved += tokens
        return self._day

    def settle(self, reserved_on: datetime, reserved: int, used: int) -> None:
        """Replaces a reservation by what was used; one of another day than today was forgotten with its day."""
        self._turn()
        if reserved_on == self._day:
            self._reserved -= reserved
            self._used += used

    @property
    def returns_at(self) -> float:
        """When the next day begins, in unix seconds."""
        self._turn()
        return (self._day + timedelta(days=1)).timestamp()
