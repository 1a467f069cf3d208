"""Columns of a span, by the tables of `catalog/dialects/`."""

from collections.abc import Mapping, Sequence
from typing import Any

from catalog.dialect import Place, of_place
from collector.otlp import plan
from collector.otlp.conversions import Context
from collector.otlp.plan import Plan, Shape

# Shapes come from outside: so many plans are kept, and none for what is larger than any client's.
MAX_PLANS = 1024
MAX_KEYS = 256
MAX_CHARACTERS = 8192
Events = Mapping[str, tuple[int, list[Mapping[str, Any]]]]


class Matcher:
    """Collects what a span offers and decides the columns."""

    def __init__(self, tenant_keys: Sequence[str]) -> None:
        self._tenant_keys = tuple(tenant_keys)
        self._plans: dict[tuple[Any, ...], Plan] = {}  # by their shapes; those of resources by their keys

    def of_resource(self, attributes: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """What the resource says; a span's own word goes before it."""
        columns: dict[str, Any] = {}
        keys = tuple(attributes)
        found = self._plans.get(keys) or self._kept(keys, keys, plan.of_resource(keys))
        found.fill(columns, list(attributes.values()), context)
        if "tenant" not in columns:
            self._tenant(columns, attributes)
        return columns

    def of_span(
        self,
        name: str,
        span_kind: str,
        scope: str,
        attributes: Mapping[str, Any],
        events: Events,
        resource: Mapping[str, Any],
        context: Context,
    ) -> dict[str, Any]:
        """The columns; `events` has for each name the first one's time and the attributes of all.

        `resource` is what `of_resource` gave.
        """
        columns = dict(resource)
        self.fill(columns, name, span_kind, scope, attributes, events, context)
        return columns

    def fill(
        self,
        columns: dict[str, Any],
        name: str,
        span_kind: str,
        scope: str,
        attributes: Mapping[str, Any],
        events: Events,
        context: Context,
    ) -> Plan:
        """Sets what a span says, as `of_span`; gives the plan by which it went."""
        # Most names mean nothing, and would make a shape of each span.
        known_name = name if of_place(Place.NAME, name) else ""
        known_scope = scope if of_place(Place.SCOPE, scope) else ""
        known_events = tuple([event for event in events if of_place(Place.EVENT, event)]) if events else ()
        offers = [*attributes.values(), name, span_kind, scope]
        for event in known_events:
            offers += events[event]
        shape = (tuple(attributes), known_name, span_kind, known_scope, known_events)
        found = self._plans.get(shape) or self._planned(shape)
        found.fill(columns, offers, context)
        self._tenant(columns, attributes)
        return found

    def _planned(self, parts: tuple[Any, ...]) -> Plan:
        shape = Shape(*parts)
        return self._kept(parts, shape.keys + shape.events, plan.of_span(shape))

    def _kept(self, shape: tuple[Any, ...], names: tuple[str, ...], made: Plan) -> Plan:
        if len(names) <= MAX_KEYS and sum(map(len, names)) <= MAX_CHARACTERS:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[shape] = made
        return made

    def _tenant(self, columns: dict[str, Any], attributes: Mapping[str, Any]) -> None:
        for key in self._tenant_keys:
            value = attributes.get(key)
            if value not in (None, "") and isinstance(value, (str, int, float)):
                columns["tenant"] = str(value)
                return
