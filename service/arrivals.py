"""What of the ledger of arrivals a caller may see, as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from collector.otlp.ledger import Arrivals, Entry
from collector.otlp.outcome import Outcome
from service.auth import Caller, Role

HOUR = 3600.0
# What somebody sent who showed no key that is for it: no business of other tenants.
UNAUTHENTICATED = frozenset({Outcome.UNAUTHORIZED.value, Outcome.NOT_FOUND.value})
Row = dict[str, Any]


def visible(arrivals: Arrivals, caller: Caller, now: float) -> tuple[list[Row], list[Row]]:
    """Requests and items, the latest first.

    A caller who is bound to tenants sees what keys of these tenants sent, and items that say one of them; what showed
    no valid key is for admins.
    """
    requests = [
        {**key._asdict(), **_when(entry, now)}
        for key, entry in arrivals.requests.items()
        if _may_see_sender(caller, entry) and (caller.role is Role.ADMIN or key.outcome not in UNAUTHENTICATED)
    ]
    items = [
        {**key._asdict(), "key": key.key if _may_see_sender(caller, entry) else "", **_when(entry, now)}
        for key, entry in arrivals.sources.items()
        if _may_see_sender(caller, entry) or (caller.scope.tenants is not None and key.tenant in caller.scope.tenants)
    ]
    return _newest_first(requests), _newest_first(items)


def _may_see_sender(caller: Caller, entry: Entry) -> bool:
    mine = caller.scope.tenants
    return mine is None or (entry.tenants is not None and entry.tenants <= mine)


def _when(entry: Entry, now: float) -> Row:
    return {
        "count": entry.count,
        "last_hour": entry.since(now - HOUR),
        "first": datetime.fromtimestamp(entry.first, UTC),
        "last": datetime.fromtimestamp(entry.last, UTC),
        "example": entry.example,
        "minutes": list(_minutes(entry)),
    }


def _minutes(entry: Entry) -> Iterator[Row]:
    for minute, count in entry.minutes.items():
        yield {"minute": datetime.fromtimestamp(minute * 60, UTC), "count": count}


def _newest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["last"], reverse=True)
