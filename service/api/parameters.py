"""Query parameters: unknown ones are errors that name the nearest known; cursors go on behind a row."""

import base64
import binascii
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from service.api.problems import Problem
from service.api.times import BadTime, duration, instant
from store.scope import moment

MAX_LIMIT = 1000
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
TIME_HELP = "RFC 3339, unix seconds, `now`, or relative: `-15m`, `now-1h`"


class Parameters(BaseModel):
    """The query parameters of a route."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        known = sorted(field.alias or name for name, field in cls.model_fields.items())
        for name in values if isinstance(values, Mapping) else ():
            if name not in known:
                raise PydanticCustomError("unknown_parameter", "{message}", {"message": unknown(str(name), known)})
        return values


def unknown(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not among those known."""
    near = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}" if known else "there are none"
    return f"{name!r} is no parameter here; {hint}"


class Window(Parameters):
    """A half-open range of time."""

    start: Text | None = Field(None, alias="from", description=f"From this time on: {TIME_HELP}")
    end: Text | None = Field(None, alias="to", description=f"Before this time: {TIME_HELP}")

    def range(self, now: float, default: float | None = None) -> tuple[float | None, float | None]:
        """Unix seconds; `default` is how far back to look if nothing says it.  Raises Problem."""
        start = moment_of("from", self.start, now)
        end = moment_of("to", self.end, now)
        if start is None and default is not None:
            start = (now if end is None else end) - default
        if start is not None and end is not None and start >= end:
            raise Problem(400, f"from ({self.start}) is not before to ({self.end}).")
        return start, end


class Page(Window):
    """A page of a list."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Rows on a page")
    cursor: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        None, description="`next_cursor` of the page before"
    )


def moment_of(name: str, text: str | None, now: float) -> float | None:
    """Unix seconds of a parameter; None if it was not given.  Raises Problem."""
    try:
        return None if text is None else instant(text, now)
    except BadTime as error:
        raise Problem(400, f"{name}: {error}") from None


def interval_of(name: str, text: str | None) -> float | None:
    """Seconds of a parameter; None if it was not given.  Raises Problem."""
    try:
        return None if text is None else duration(text)
    except BadTime as error:
        raise Problem(400, f"{name}: {error}") from None


def filters_of(parameters: BaseModel, *besides: str) -> dict[str, str]:
    """The filters given among the parameters."""
    apart = {"start", "end", "limit", "cursor", *besides}
    return {name: str(value) for name, value in parameters if value is not None and name not in apart}


def shown_window(start: float | None, end: float | None) -> dict[str, Any]:
    """The range of time that an answer is about."""
    return {name: None if bound is None else moment(bound) for name, bound in (("from", start), ("to", end))}


def once(request: Request) -> None:
    """Refuses a parameter given twice, of which one would be ignored."""
    names = [name for name, _ in request.query_params.multi_items()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Problem(400, f"{twice[0]!r} is given more than once.")


@dataclass(frozen=True)
class Position:
    """Where a page starts: behind a row, in the window that the first page's relative times meant."""

    after: Sequence[Any] | None
    window: tuple[float | None, float | None]


def position(page: Page, now: float, *kinds: type, default: float | None = None) -> Position:
    """The place that a cursor names; its members must be of `kinds`.  Raises Problem."""
    if page.cursor is None:
        return Position(None, page.range(now, default))
    try:
        text = base64.urlsafe_b64decode(page.cursor + "=" * (-len(page.cursor) % 4))
        fingerprint, after, window = json.loads(text)
        start, end = window
        fits = len(after) == len(kinds) and all(map(_is, after, kinds))
        if not fits or not all(bound is None or _is(bound, float) for bound in (start, end)):
            raise ValueError("members")
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Problem(400, "cursor: not one that this route gave") from None
    if fingerprint != _fingerprint(page):
        raise Problem(400, "cursor: belongs to a query with other parameters; only limit may change between pages")
    return Position(after, (start, end))


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1.8e308
    return isinstance(value, kind)


def _fingerprint(page: Page) -> str:
    given = page.model_dump(mode="json", exclude={"cursor", "limit"})
    return hashlib.sha256(json.dumps([type(page).__name__, given], sort_keys=True).encode()).hexdigest()[:12]


def paged(
    page: Page, place: Position, rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Sequence[Any]]
) -> tuple[list[dict[str, Any]], str | None]:
    """The page's rows, given one more than its limit where there is one, and the cursor of the next page."""
    shown = list(rows[: page.limit])
    cursor = None
    if len(rows) > page.limit:
        text = json.dumps([_fingerprint(page), list(key(shown[-1])), place.window], separators=(",", ":"))
        cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return shown, cursor
