"""Plans against the plain reading of the dialects' tables: each place asked in order, for each span anew."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_support import DATA, body, spans_of

from catalog.dialect import Conversion, Place, Source, of_attribute, of_place, sources
from collector.otlp.attributes import by_key
from collector.otlp.conversions import Context, convert
from collector.otlp.dialects import MAX_KEYS, MAX_PLANS, Matcher
from collector.otlp.messages import nested
from collector.otlp.plan import MAX_KNOWN, MAX_KNOWN_BYTES, Plan
from collector.otlp.rest import SPAN_KINDS, events_of

CONTEXT = Context(1_795_470_000_000_000_000, 10_000, b"0123456789abcdef")
Columns = dict[str, Any]


def plainly(name: str, span_kind: str, scope: str, attributes: Mapping[str, Any], events: Mapping[str, Any]) -> Columns:
    """The columns by their definition: sources in their order, the first that applies and yields a value."""
    matches: list[tuple[Source, Any]] = []
    spread: dict[Source, dict[str, Any]] = {}
    for key, value in attributes.items():
        for source in of_attribute(key):
            if source.place is Place.FLATTENED:
                spread.setdefault(source, {})[key] = value
            else:
                matches.append((source, value))
    matches += [(source, nested(source.key, values)) for source, values in spread.items()]
    for place, key in ((Place.NAME, name), (Place.SPAN_KIND, span_kind), (Place.SCOPE, scope)):
        matches += [(source, key) for source in of_place(place, key)]
    for event, (first, details) in events.items():
        for source in of_place(Place.EVENT, event):
            matches.append((source, first if source.conversion is Conversion.EVENT_TIME else details))
    return decided(sorted(matches, key=lambda match: match[0].order), attributes)


def decided(matches: list[tuple[Source, Any]], attributes: Mapping[str, Any]) -> Columns:
    columns: Columns = {}
    for source, value in matches:
        if source.column in columns or (source.kinds and columns.get("kind") not in source.kinds):
            continue
        present = attributes.get(source.needs)
        if source.needs and (
            present is None or (source.needs_value and str(present).casefold() != source.needs_value.casefold())
        ):
            continue
        if (made := convert(source, value, CONTEXT)) is not None:
            columns[source.column] = made
    return columns


def keys_of(place: Place) -> list[str]:
    return sorted({source.key for source in sources() if source.place is place})


TRANSLATED = sorted({name for source in sources() for name in source.values})
WORDS = sorted({step for source in sources() for path in source.paths for term in path for step in term})
TEXTS = st.sampled_from([*TRANSLATED, "gpt-4o", "stop", "true", "", "7", "[]", "x" * 600]) | st.text(max_size=4)
SCALARS = TEXTS | st.integers(-2, 2**62) | st.booleans() | st.floats(allow_nan=False) | st.none()
OBJECTS = st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=2), SCALARS, max_size=4)
TREES = OBJECTS | st.lists(OBJECTS | TEXTS, max_size=3) | st.dictionaries(st.sampled_from(WORDS), OBJECTS, max_size=3)
JSON = TREES.map(json.dumps) | TREES.map(json.dumps).map(json.dumps) | TREES.map(lambda tree: json.dumps(tree)[:-1])
NEEDED = sorted({source.needs for source in sources() if source.needs})
FLAT = st.builds(
    "{}{}.{}".format,
    st.sampled_from(keys_of(Place.FLATTENED)),
    st.integers(0, 2),
    st.sampled_from(["role", "content", "message.role", "message.content", "document.content", "x"]),
)
KEYS = st.sampled_from(keys_of(Place.ATTRIBUTE)) | st.sampled_from(NEEDED) | FLAT | st.text(max_size=3)
EVENTS = st.dictionaries(
    st.sampled_from([*keys_of(Place.EVENT), "other"]),
    st.tuples(st.integers(CONTEXT.start_ns - 5, CONTEXT.start_ns + 10**9), st.lists(OBJECTS, min_size=1, max_size=2)),
    max_size=2,
)
MATCHER = Matcher(("tenant.id",))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([*keys_of(Place.NAME), "chat x"]),
    st.sampled_from(["CLIENT", "SERVER", "INTERNAL"]),
    st.sampled_from([*keys_of(Place.SCOPE), "x"]),
    st.dictionaries(KEYS, SCALARS | JSON | TREES, max_size=8),
    EVENTS,
)
def test_a_plan_gives_what_asking_each_place_in_order_gives(
    name: str, span_kind: str, scope: str, attributes: Columns, events: Any
) -> None:
    # The same matcher for all examples: what it remembers of one must not change another.
    found = MATCHER.of_span(name, span_kind, scope, attributes, events, {}, CONTEXT)
    found.pop("tenant", None)
    assert repr(sorted(found.items())) == repr(sorted(plainly(name, span_kind, scope, attributes, events).items()))


def read(matcher: Matcher, **attributes: Any) -> Columns:
    spelled = {key.replace("__", "."): value for key, value in attributes.items()}
    return matcher.of_span("", "CLIENT", "", spelled, {}, {}, CONTEXT)


def test_values_of_one_span_are_not_taken_for_those_of_another_of_its_shape() -> None:
    matcher = Matcher(())
    seen = [
        read(matcher, gen_ai__operation__name=operation, gen_ai__usage__input_tokens=tokens)
        for operation, tokens in (("chat", 1), ("embeddings", 0), ("chat", -1), (1, "3"), ("chat", "4"))
    ]
    assert [(row.get("kind"), row.get("input_tokens")) for row in seen] == [
        ("llm", 1),
        ("embedding", 0),
        ("llm", None),
        (None, 3),
        ("llm", 4),
    ]


def plan_of(matcher: Matcher, *keys: str, **attributes: Any) -> Plan:
    return matcher.fill({}, "", "CLIENT", "", dict.fromkeys(keys, 1) | attributes, {}, CONTEXT)


def test_plans_are_kept_for_as_many_shapes_as_clients_have_and_no_more() -> None:
    matcher = Matcher(())
    first = plan_of(matcher, "key")
    assert plan_of(matcher, "key") is first
    for number in range(MAX_PLANS):
        plan_of(matcher, f"key{number}")
    assert plan_of(matcher, "key") is not first


def test_no_plan_is_kept_for_a_shape_larger_than_any_clients() -> None:
    matcher = Matcher(())
    large = [f"key{number}" for number in range(MAX_KEYS + 1)]
    assert plan_of(matcher, *large) is not plan_of(matcher, *large)


def test_what_a_plan_remembers_of_values_is_bounded() -> None:
    matcher = Matcher(())
    for number in range(3 * MAX_KNOWN):
        plan = plan_of(matcher, **{"gen_ai.provider.name": f"odd{number}", "error.type": "x" * number * 10})
    assert 0 < len(plan.known) <= MAX_KNOWN
    assert max(len(telling) for telling, _ in plan.known) <= MAX_KNOWN_BYTES


@pytest.mark.parametrize("name", sorted(path.relative_to(DATA).as_posix() for path in DATA.glob("**/*traces*.pb.gz")))
def test_recorded_spans_are_planned_as_they_are_read(name: str) -> None:
    for _, scope, span in spans_of(ExportTraceServiceRequest.FromString(body(name))):
        kind, attributes = SPAN_KINDS[span.kind], by_key(span.attributes)
        events = events_of(span, failed=True)[1]
        found = MATCHER.of_span(span.name, kind, scope.name, attributes, events, {}, CONTEXT)
        found.pop("tenant", None)
        assert found == plainly(span.name, kind, scope.name, attributes, events)
