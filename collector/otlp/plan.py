"""How spans of one shape become columns: the dialects' tables, applied to the keys once instead of to each span."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from catalog.dialect import Conversion, Place, Source, of_attribute, of_place, sources, spellings
from collector.otlp.conversions import Context, convert
from collector.otlp.messages import nested

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
    plain: Any  # str or int: values of this type are taken as they are, unless empty or negative
    cached: bool  # short texts mean the same whenever they come
    words: tuple[str, ...]  # one of these stands in the JSON text, or nothing is found there


class Plan:
    """For each column the places that are asked for it, in their order; the kind of the span first."""

    def __init__(self, keys: Sequence[str], candidates: Iterable[Candidate]) -> None:
        present = set(keys)
        self.movable = tuple((key, column) for key, column in _movable() if key in present)
        self.answers = tuple(key for key, column in self.movable if column == "output_messages")
        self.users = tuple(key for key in keys if key in _users())
        self.wrapped = any(key.startswith("$") for key in keys)  # what JSON objects cannot say without a wrapper
        columns: dict[str, list[Candidate]] = {}
        for candidate in sorted(candidates, key=lambda candidate: candidate.source.order):
            columns.setdefault(candidate.source.column, []).append(candidate)
        self._steps = tuple(columns.items())

    def fill(self, row: dict[str, Any], offers: Sequence[Any], context: Context) -> None:
        """Sets each column for which one of its places yields a value."""
        kind: str | None = None
        for column, candidates in self._steps:
            for source, at, spread, needed, plain, cached, words in candidates:
                if source.kinds and kind not in source.kinds:
                    continue
                if needed is not None and not _met(source, offers[needed]):
                    continue
                value: Any = offers[at] if not spread else nested(source.key, {key: offers[of] for key, of in spread})
                if type(value) is plain:
                    made: Any = value if (value if plain is str else value >= 0) else None
                elif cached and type(value) is str and len(value) <= KNOWN_CHARACTERS:
                    made = _of_text(source, value)
                elif words and type(value) is str and not _mentions(value, words):
                    continue
                else:
                    made = convert(source, value, context)
                if made is not None:
                    row[column] = made
                    if column == "kind":
                        kind = made
                    break


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
    changed = source.json or source.paths or source.values or source.value is not None or source.column in spellings()
    plain = None if changed else {Conversion.TEXT: str, Conversion.INTEGER: int}.get(source.conversion)
    cached = source.conversion in OF_TEXT
    words = _words(source) if source.value is None else ()
    yield Candidate(source, at, spread, index.get(source.needs), plain, cached, words)


def _words(source: Source) -> tuple[str, ...]:
    """For each alternative path the longest of its keys; none if one of them has no key."""
    found = [max((step for step in terms[0] if not step.isdecimal()), key=len, default="") for terms in source.paths]
    return tuple(found) if all(found) else ()


def _mentions(text: str, words: tuple[str, ...]) -> bool:
    # A key may be written with escapes.
    return any(word in text for word in words) or "\\u" in text


def _met(source: Source, present: Any) -> bool:
    if not source.needs_value:
        return present is not None
    return str(present).casefold() == source.needs_value.casefold()


@lru_cache(maxsize=KNOWN_TEXTS)
def _of_text(source: Source, text: str) -> Any:
    return convert(source, text, Context(0, 0, b""))
