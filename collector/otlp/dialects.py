"""Columns of a span, by the tables of `catalog/dialects/`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from catalog.dialect import Conversion, Place, Source, of_attribute, of_place
from collector.otlp.conversions import Context, convert
from collector.otlp.messages import nested

Match: TypeAlias = tuple[int, Source, Any]


class Matcher:
    """Collects what a span offers and decides the columns."""

    def __init__(self, tenant_keys: Sequence[str]) -> None:
        self._tenant_keys = tuple(tenant_keys)

    def of_resource(self, attributes: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """What the resource says; a span's own word goes before it."""
        matches = [
            (source.order, source, value)
            for key, value in attributes.items()
            for source in of_place(Place.RESOURCE, key)
        ]
        columns = _decide(matches, attributes, context, {})
        if "tenant" not in columns and (tenant := self._tenant(attributes)) is not None:
            columns["tenant"] = tenant
        return columns

    def of_span(
        self,
        name: str,
        span_kind: str,
        scope: str,
        attributes: Mapping[str, Any],
        events: Mapping[str, tuple[int, list[Mapping[str, Any]]]],
        resource: Mapping[str, Any],
        context: Context,
    ) -> dict[str, Any]:
        """The columns; `events` has for each name the first one's time and the attributes of all.

        `resource` is what `of_resource` gave.
        """
        matches = _of_attributes(attributes)
        for place, key in ((Place.NAME, name), (Place.SCOPE, scope), (Place.SPAN_KIND, span_kind)):
            matches += [(source.order, source, key) for source in of_place(place, key)]
        for event, (first, details) in events.items():
            for source in of_place(Place.EVENT, event):
                matches.append((source.order, source, first if source.conversion is Conversion.EVENT_TIME else details))
        columns = _decide(matches, attributes, context, resource)
        if (tenant := self._tenant(attributes)) is not None:
            columns["tenant"] = tenant
        return columns

    def _tenant(self, attributes: Mapping[str, Any]) -> str | None:
        for key in self._tenant_keys:
            value = attributes.get(key)
            if value not in (None, "") and isinstance(value, (str, int, float)):
                return str(value)
        return None


def _of_attributes(attributes: Mapping[str, Any]) -> list[Match]:
    matches: list[Match] = []
    flattened: dict[int, tuple[Source, dict[str, Any]]] = {}
    for key, value in attributes.items():
        for source in of_attribute(key):
            if source.place is Place.FLATTENED:
                flattened.setdefault(source.order, (source, {}))[1][key] = value
            else:
                matches.append((source.order, source, value))
    matches += [(order, source, nested(source.key, values)) for order, (source, values) in flattened.items()]
    return matches


def _decide(
    matches: list[Match], attributes: Mapping[str, Any], context: Context, resource: Mapping[str, Any]
) -> dict[str, Any]:
    """For each column the first source, in their order, that yields a value; else what the resource says."""
    matches.sort(key=_order)
    columns: dict[str, Any] = {}
    for _, source, value in matches:
        if source.column in columns or not _applies(source, attributes, columns):
            continue
        made = convert(source, value, context)
        if made is not None:
            columns[source.column] = made
    for column, value in resource.items():
        columns.setdefault(column, value)
    return columns


def _order(match: Match) -> int:
    return match[0]


def _applies(source: Source, attributes: Mapping[str, Any], columns: Mapping[str, Any]) -> bool:
    if source.kinds and columns.get("kind") not in source.kinds:
        return False
    if not source.needs:
        return True
    present = attributes.get(source.needs)
    if not source.needs_value:
        return present is not None
    return str(present).casefold() == source.needs_value.casefold()
