"""How spans of one shape become columns: the dialects' tables, applied to the keys once instead of to each span."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from catalog.dialect import Conversion, Place, Source, of_attribute, of_place, sources, spellings
from collector.otlp.conversions import Context, convert
from collector.otlp.messages import closed, nested

# Columns that may hold an attribute byte for byte, which then need not be kept a second time.
MOVABLE = ("input_messages", "output_messages", "response_schema", "retrieved_documents")
# Conversions that look at the text alone, and what is known to come out of them for texts seen before.
OF_TEXT = frozenset({Conversion.TEXT, Conversion.FIRST, Conversion.HEAD, Conversion.CLASS_NAME})
KNOWN_TEXTS = 8192
KNOWN_CHARACTERS = 64


class Shape(NamedTuple):
    """What spans have in common whose columns come from the same places."""

    keys: tuple[str, ...]  # of the attributes
    name: str
    span_kind: str
    scope: str
    events: tuple[str, ...]


class Candidate(NamedTuple):
    """One place from which a column may come."""

    source: Source
    at: int  # its place among the offers
    spread: tuple[tuple[str, int], ...]  # or those of a flattened list
    needed: int | None  # the place of the attribute that must be there
    short: bool  # short texts mean the same whenever they come
    words: tuple[str, ...]  # one of these stands in the JSON text, or nothing is found there


class Plain(NamedTuple):
    """The place that is asked first for a column, where its values need no conversion."""

    column: str
    at: int
    type: type  # of the values that are the column's
    least: Any  # if they are more than this


class Plan:
    """For each column the places that are asked for it, in their order; the kind of the span first."""

    def __init__(self, keys: Sequence[str], candidates: Iterable[Candidate]) -> None:
        present = set(keys)
        self.movable = tuple((key, column) for key, column in _movable() if key in present)
        self.answers = tuple(key for key, column in self.movable if column == "output_messages")
        self.users = tuple(key for key in keys if key in _users())
        self.wrapped = any(key.startswith("$") for key in keys)  # what JSON objects cannot say without a wrapper
        self._candidates = sorted(candidates, key=lambda candidate: candidate.source.order)
        self._kind = [candidate for candidate in self._candidates if candidate.source.column == "kind"]
        self._steps: dict[str | None, _Steps] = {}

    def fill(self, row: dict[str, Any], offers: Sequence[Any], context: Context) -> None:
        """Sets each column for which one of its places yields a value."""
        kind = _first(self._kind, offers, context)
        if kind is not None:
            row["kind"] = kind
        steps = self._steps.get(kind) or self._steps.setdefault(kind, _Steps(self._candidates, kind))
        for column, at, type_, least in steps.plain:
            value = offers[at]
            if type(value) is type_ and value > least:
                row[column] = value
            elif (made := _first(steps.others[column], offers, context)) is not None:
                row[column] = made
        for column, candidates in steps.rest:
            if (made := _first(candidates, offers, context)) is not None:
                row[column] = made


class _Steps:
    """A plan for spans of one kind."""

    def __init__(self, candidates: Sequence[Candidate], kind: str | None) -> None:
        self.others: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            source = candidate.source
            if source.column != "kind" and (not source.kinds or kind in source.kinds):
                self.others.setdefault(source.column, []).append(candidate)
        found = (_plain(column, asked[0]) for column, asked in self.others.items())
        self.plain = tuple(plain for plain in found if plain)
        direct = {plain.column for plain in self.plain}
        self.rest = tuple((column, asked) for column, asked in self.others.items() if column not in direct)


def _first(candidates: Iterable[Candidate], offers: Sequence[Any], context: Context) -> Any:
    """What the first of them yields that yields a value."""
    for source, at, spread, needed, short, words in candidates:
        if needed is not None and (offers[needed] is None or not _met(source, offers[needed])):
            continue
        value = offers[at] if not spread else nested(source.key, {key: offers[of] for key, of in spread})
        if type(value) is str:
            if short and len(value) <= KNOWN_CHARACTERS:
                made = _of_text(source, value)
                if made is not None:
                    return made
                continue
            if words and not _may_hold(value, words):
                continue
        made = convert(source, value, context)
        if made is not None:
            return made
    return None


def of_resource(keys: Sequence[str]) -> Plan:
    """The plan for resources with these attributes; what they offer is their values."""
    index = {key: at for at, key in enumerate(keys)}
    found = (
        candidate
        for key, at in index.items()
        for source in of_place(Place.RESOURCE, key)
        for candidate in _candidate(source, at, index)
    )
    return Plan(keys, found)


def of_span(shape: Shape) -> Plan:
    """The plan for spans of this shape.

    They offer the values of their attributes, their name, kind and scope, and for each event two things: the time of
    the first, and the attributes of all.
    """
    return Plan(shape.keys, _candidates(shape, {key: at for at, key in enumerate(shape.keys)}))


@cache
def _users() -> frozenset[str]:
    return frozenset(source.key for source in sources() if source.conversion is Conversion.HASH)


@cache
def _movable() -> tuple[tuple[str, str], ...]:
    """Attributes and the columns that may hold them as they are."""
    return tuple(
        (source.key, source.column)
        for column in MOVABLE
        for source in sources()
        if source.column == column and source.place is Place.ATTRIBUTE
    )


def _candidates(shape: Shape, index: Mapping[str, int]) -> Iterable[Candidate]:
    spread: dict[Source, list[tuple[str, int]]] = {}
    for key, at in index.items():
        for source in of_attribute(key):
            if source.place is Place.FLATTENED:
                spread.setdefault(source, []).append((key, at))
            else:
                yield from _candidate(source, at, index)
    for source, places in spread.items():
        yield from _candidate(source, 0, index, tuple(places))
    others = ((Place.NAME, shape.name), (Place.SPAN_KIND, shape.span_kind), (Place.SCOPE, shape.scope))
    for at, (place, key) in enumerate(others, len(index)):
        for source in of_place(place, key):
            yield from _candidate(source, at, index)
    for at, event in enumerate(shape.events):
        for source in of_place(Place.EVENT, event):
            details = source.conversion is not Conversion.EVENT_TIME
            yield from _candidate(source, len(index) + len(others) + 2 * at + details, index)


def _candidate(
    source: Source, at: int, index: Mapping[str, int], spread: tuple[tuple[str, int], ...] = ()
) -> Iterable[Candidate]:
    if source.needs and source.needs not in index:
        return
    words = _words(source) if source.value is None else ()
    yield Candidate(source, at, spread, index.get(source.needs), source.conversion in OF_TEXT, words)


def _plain(column: str, candidate: Candidate) -> Plain | None:
    source = candidate.source
    changed = source.json or source.paths or source.values or source.value is not None or column in spellings()
    if changed or candidate.needed is not None or candidate.spread:
        return None
    if source.conversion is Conversion.TEXT:
        return Plain(column, candidate.at, str, "")
    # Zero is a number too, but takes the longer way, as it is rare.
    return Plain(column, candidate.at, int, 0) if source.conversion is Conversion.INTEGER else None


def _words(source: Source) -> tuple[str, ...]:
    """For each alternative path the longest of its keys; none if one of them has no key."""
    found = [max((step for step in terms[0] if not step.isdecimal()), key=len, default="") for terms in source.paths]
    return tuple(found) if all(word and not word.startswith("?") for word in found) else ()


def _may_hold(text: str, words: tuple[str, ...]) -> bool:
    """Whether it is worth parsing a text for these keys: most is no JSON, or was cut off, or does not name them."""
    if not closed(text):
        return False
    for word in words:
        if word in text:
            return True
    # A key may be written with escapes.
    return "\\u" in text


def _met(source: Source, present: Any) -> bool:
    return not source.needs_value or str(present).casefold() == source.needs_value.casefold()


@lru_cache(maxsize=KNOWN_TEXTS)
def _of_text(source: Source, text: str) -> Any:
    return convert(source, text, Context(0, 0, b""))
