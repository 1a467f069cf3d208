"""All recorded clients land in the same columns, and their tokens are those of the bill."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.collector.otlp_clients import (
    CLIENTS,
    Sent,
    billed,
    golden,
    golden_path,
    rows,
    sent,
    span_by_span,
    take_in,
)
from tests.store_kit import Store

WAYS: dict[str, Callable[[Sent], Sent]] = {
    "bodies_backwards": lambda bodies: bodies[::-1],
    "span_by_span": span_by_span,
    "span_by_span_backwards": lambda bodies: span_by_span(bodies)[::-1],
}
SEVERAL = {client for client in CLIENTS if len(sent(client)) > 1}
ORDERS = [(client, way) for client in CLIENTS for way in WAYS if way != "bodies_backwards" or client in SEVERAL]


def tokens(found: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((row["kind"], row["input_tokens"], row["output_tokens"]) for row in found)


@pytest.mark.parametrize("client", CLIENTS)
def test_columns_of_every_client_are_those_of_its_golden_file(store: Store, client: str) -> None:
    take_in(store, sent(client))
    assert golden(store) == json.loads(golden_path(client).read_text())
    assert tokens(rows(store, "requests")) == Counter(tuple(call) for call in billed(client))
    # No level above the calls has tokens of its own.
    above = rows(store, "spans", "kind NOT IN ('llm', 'embedding')")
    assert tokens(above).keys() <= {(row["kind"], None, None) for row in above}


@pytest.mark.parametrize(("client", "way"), ORDERS, ids=lambda value: value)
def test_every_call_is_one_request_with_the_tokens_that_were_billed_whatever_the_order(
    store: Store, client: str, way: str
) -> None:
    take_in(store, WAYS[way](sent(client)))
    assert tokens(rows(store, "requests")) == Counter(tuple(call) for call in billed(client))
