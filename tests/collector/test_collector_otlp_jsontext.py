"""JSON in attributes: fast, with the standard library's verdicts."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp.attributes import dump, encode, loads

SETTINGS = settings(max_examples=200, deadline=None)
TEXTS = st.text(st.characters(), max_size=6)  # halves of surrogate pairs too
NUMBERS = st.integers() | st.integers(-(2**65), 2**65) | st.floats() | st.sampled_from([2**63, 2**64 - 1, 1e16, 1e-7])
DATA = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.just("null"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
ODD = ["NaN", "[-Infinity]", "[1e999]", '"\\ud800"', '{"a":1,"b":2,"a":3}', "\ufeff{}", "01", "[1,]", "[" * 1100, ""]
WRITTEN = DATA.map(json.dumps) | DATA.map(lambda data: json.dumps(data, ensure_ascii=False))
strict = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def outcome(function: Any, data: Any) -> Any:
    """What the function gives, so that 1, 1.0 and True, NaN and the order of keys are told apart."""
    try:
        return repr(function(data))
    except (ValueError, RecursionError) as error:
        return ValueError if isinstance(error, ValueError) else RecursionError


@SETTINGS
@given(
    DATA.map(json.dumps) | DATA.map(lambda data: json.dumps(data, ensure_ascii=False)) | st.sampled_from(ODD) | TEXTS
)
def test_json_text_reads_as_the_standard_library_reads_it(text: str) -> None:
    assert outcome(loads, text) == outcome(json.loads, text)


@SETTINGS
@given(DATA)
def test_json_text_is_written_as_the_standard_library_writes_it(data: Any) -> None:
    def reread(write: Any) -> Any:
        return lambda data: json.loads(write(data))

    assert outcome(reread(dump), data) == outcome(reread(strict), data)


@pytest.mark.parametrize("data", [{"a": [1, 1.0, "é\u2028\x00\x7f"], "b": None}, {"n": 2**64}, [[]] * 3], ids=str)
def test_attributes_are_written_compactly_in_utf_8(data: Any) -> None:
    assert encode(data) == strict(data).encode()
