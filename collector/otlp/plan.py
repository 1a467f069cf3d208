"""How spans of one shape become columns: the dialects' tables, applied to the keys once instead of to each span."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from catalog.dialect import Conversion, Place, Source, of_attribute, of_place, sources, spellings, user_keys
from collector.otlp.attributes import encode
from collector.otlp.conversions import Context, convert
from collector.otlp.messages import closed, nested, parsed

# Columns that may hold an attribute byte for byte, which then need not be kept a second time.
MOVABLE = ("input_messages", "output_messages", "response_schema", "retrieved_documents")
# Conversions that look at the value alone, and give few different ones: roles, kinds, reasons, names of classes.
TELLING = frozenset({Conversion.TEXT, Conversion.FIRST, Conversion.HEAD, Conversion.CLASS_NAME})
OF_SHAPE = frozenset({Place.NAME, Place.SCOPE, Place.SPAN_KIND})
# Values come from outside: so many of their combinations are remembered, and none that is longer.
MAX_KNOWN = 32
MAX_KNOWN_BYTES = 512


Documents = dict[int, Any]  # JSON texts as data, by their place among the offers


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
    plain: type | None  # values of this type are the column's, unless they are empty, or negative
    words: tuple[str, ...]  # one of these stands in JSON text, or nothing is found there
    telling: bool  # the value is one of few


class Direct(NamedTuple):
    """A place whose values need no conversion if they have this type and are more than the least."""

    column: str
    at: int
    type: Any
    least: Any
    asked: list[Candidate]  # else


class Plan:
    """For each column the places that are asked for it, in their order; the kind of the span first.

    What follows from the few telling values (the operation, the provider, ...) is found once for each combination.
    """

    def __init__(self, keys: Sequence[str], candidates: Iterable[Candidate]) -> None:
        present = set(keys)
        self.movable = tuple((key, column) for key, column in _movable() if key in present and key not in user_keys())
        self.answers = tuple(key for key, column in self.movable if column == "output_messages")
        self.users = tuple(key for key in keys if key in user_keys())
        self.wrapped = any(key.startswith("$") for key in keys)  # what JSON objects cannot say without a wrapper
        self._candidates = sorted(candidates, key=lambda candidate: candidate.source.order)
        telling = [candidate for candidate in self._candidates if candidate.telling]
        places = {at for candidate in telling for at in (candidate.at, candidate.needed) if at is not None}
        # The name, kind and scope of the span are the shape's.
        self._telling = sorted(at for at in places if at < len(keys))
        self._texts = sorted({candidate.at for candidate in self._candidates if candidate.words})
        self.known: dict[tuple[bytes, tuple[int, ...]], _Known] = {}

    def fill(self, row: dict[str, Any], offers: Sequence[Any], context: Context) -> None:
        """Sets each column for which one of its places yields a value."""
        telling = encode([offers[at] for at in self._telling])
        # Most texts are no JSON, or were cut off: nobody has to look into those.
        bare = tuple([at for at in self._texts if type(offers[at]) is str and not closed(offers[at])])
        known = self.known.get((telling, bare)) or self._learn(telling, bare, offers, context)
        documents: Documents = {}
        steps = known.of_kind(offers, context, documents)
        row.update(steps.columns)
        for column, at, type_, least, candidates in steps.direct:
            value = offers[at]
            if type(value) is type_ and value > least:
                row[column] = value
            elif (made := _first(candidates, offers, context, documents)) is not None:
                row[column] = made
        for column, candidates, told in steps.rest:
            made = _first(candidates, offers, context, documents)
            if made is not None:
                row[column] = made
            elif told is not None:
                row[column] = told

    def _learn(self, telling: bytes, bare: tuple[int, ...], offers: Sequence[Any], context: Context) -> "_Known":
        left = [one for one in self._candidates if not (one.words and one.at in bare)]
        known = _Known(left, offers, context)
        if len(telling) <= MAX_KNOWN_BYTES:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[telling, bare] = known
        return known


class _Known:
    """What follows from one combination of telling values."""

    def __init__(self, candidates: Sequence[Candidate], offers: Sequence[Any], context: Context) -> None:
        self._candidates = candidates
        self._told = {one.source: _first([one], offers, context, {}) for one in candidates if one.telling}
        self._kinds, self._kind = _walk([one for one in candidates if one.source.column == "kind"], self._told)
        self._steps: dict[Any, _Steps] = {}

    def of_kind(self, offers: Sequence[Any], context: Context, documents: Documents) -> "_Steps":
        """What is left to do for a span, whose kind may follow from another of its values."""
        kind = _first(self._kinds, offers, context, documents) if self._kinds else None
        kind = self._kind if kind is None else kind
        return self._steps.get(kind) or self._steps.setdefault(kind, _Steps(self._candidates, self._told, kind))


class _Steps:
    """What is left to do for spans of one kind."""

    def __init__(self, candidates: Sequence[Candidate], told: Mapping[Source, Any], kind: Any) -> None:
        asked: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            source = candidate.source
            if source.column != "kind" and (not source.kinds or kind in source.kinds):
                asked.setdefault(source.column, []).append(candidate)
        self.columns = {} if kind is None else {"kind": kind}
        self.direct: list[Direct] = []
        self.rest: list[tuple[str, list[Candidate], Any]] = []  # column, who is asked, what else is told
        for column, places in asked.items():
            places, value = _walk(places, told)
            if places and places[0].plain and places[0].needed is None and value is None:
                self.direct.append(_direct(places))
            elif places:
                self.rest.append((column, places, value))
            elif value is not None:
                self.columns[column] = value


def _walk(candidates: Iterable[Candidate], told: Mapping[Source, Any]) -> tuple[list[Candidate], Any]:
    """Who has to be asked before one of the telling ones yields a value, and that value."""
    asked = []
    for candidate in candidates:
        if not candidate.telling:
            asked.append(candidate)
        elif (value := told[candidate.source]) is not None:
            return asked, value
    return asked, None


def _direct(candidates: list[Candidate]) -> Direct:
    first = candidates[0]
    # Zero is a number too, but rare: it takes the longer way.
    return Direct(first.source.column, first.at, first.plain, "" if first.plain is str else 0, candidates)


def _first(candidates: Iterable[Candidate], offers: Sequence[Any], context: Context, documents: Documents) -> Any:
    """What the first of them yields that yields a value."""
    for source, at, spread, needed, plain, words, _ in candidates:
        if needed is not None and (offers[needed] is None or (source.needs_value and not _met(source, offers[needed]))):
            continue
        value = offers[at] if not spread else nested(source.key, {key: offers[of] for key, of in spread})
        if type(value) is str:
            if plain is str and value:
                return value
            if words:
                value = _document(value, at, words, documents)
                if value is None:
                    continue
        made = convert(source, value, context)
        if made is not None:
            return made
    return None


def _document(text: str, at: int, words: Sequence[str], documents: Documents) -> Any:
    """The text as data where it is a JSON object that may have one of these keys, None where it has none.

    Several columns look into the same text; a key may be written with escapes.
    """
    if at not in documents:
        if not (any(word in text for word in words) or "\\u" in text):
            return None
        documents[at] = parsed(text)
    found = documents[at]
    return found if isinstance(found, dict) else text


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
    within = source.json or bool(source.paths) or bool(spread)
    translated = bool(source.values) or source.value is not None or source.column in spellings()
    plain = None if within or translated else {Conversion.TEXT: str, Conversion.INTEGER: int}.get(source.conversion)
    telling = source.place in OF_SHAPE or not (plain or within or source.value is not None)
    telling = telling and source.conversion in TELLING
    words = _words(source) if source.value is None else ()
    needed = index[source.needs] if source.needs else None
    yield Candidate(source, at, spread, needed, plain, words, telling)


def _words(source: Source) -> tuple[str, ...]:
    """For each alternative path the longest of its keys; none if one of them has no key."""
    found = [max((step for step in terms[0] if not step.isdecimal()), key=len, default="") for terms in source.paths]
    return tuple(found) if all(word and not word.startswith("?") for word in found) else ()


def _met(source: Source, present: Any) -> bool:
    return str(present).casefold() == source.needs_value.casefold()
