"""The page that says what became which column, and the plain reading of the tables that it is made with."""

import pytest

from collector.otlp.attributes import mapping
from collector.otlp.conversions import Context
from collector.otlp.decode import STATUS_ERROR
from collector.otlp.dialects import Matcher
from collector.otlp.rest import SPAN_KINDS, events_of
from tests.collector.dialects_page import LIMIT, PAGE, explained, page, spans
from tests.collector.otlp_clients import CLIENTS
from tests.collector.otlp_support import KEY


@pytest.mark.parametrize("client", CLIENTS)
def test_columns_are_found_as_the_tables_say(client: str) -> None:
    matcher = Matcher(())
    for span, scope, resource in spans(client):
        context = Context(span.start_time_unix_nano, LIMIT, KEY)
        _, events = events_of(span, span.status.code == STATUS_ERROR)
        columns = matcher.of_resource(resource, context)
        kind = SPAN_KINDS.get(span.kind, "UNSPECIFIED")
        found = matcher.of_span(span.name, kind, scope, mapping(span.attributes), events, columns, context)
        assert found == {column: told.value for column, told in explained(span, scope, resource).items()}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make generate"
