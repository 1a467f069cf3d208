"""Validates values against JSON schemas from people one does not trust: nothing fetched, all work counted.

`jsonschema` alone would fetch remote references, run the schema's regular expressions in `re`, compare every pair of
items for `uniqueItems`, and follow references that double at each step.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from evals.patterns import BadPattern, Pattern
from evals.strict_json import NotJson, parse

MAX_SCHEMA = 65_536
# An ordinary schema takes a few steps per value of the instance; this many take about a second.
MAX_STEPS = 200_000

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class BadSchema(ValueError):
    """The schema is none, or asks for what is not done here."""


class TooExpensive(Exception):
    """Checking would take more steps than allowed."""


_steps: ContextVar[list[int]] = ContextVar("steps")


def spend(steps: int) -> None:
    """Takes `steps` from the running check's allowance; raises TooExpensive."""
    left = _steps.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooExpensive(f"more than {MAX_STEPS} steps")


@lru_cache(maxsize=256)
def compiled(text: str) -> Validator:
    """The validator of the schema in `text`.  Raises BadSchema."""
    if len(text) > MAX_SCHEMA:
        raise BadSchema(f"schema of {len(text)} characters is longer than {MAX_SCHEMA}")
    try:
        schema = parse(text)
    except NotJson as error:
        raise BadSchema(f"schema is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise BadSchema(f"schema is {type(schema).__name__}, not an object")
    kind = jsonschema.validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)  # type: ignore[arg-type]  # true and false are schemas, too
    except jsonschema.SchemaError as error:
        raise BadSchema(f"schema is invalid at {_pointer(error.absolute_path)}") from None
    except RecursionError:
        raise BadSchema("schema is nested too deep") from None
    return _bounded(kind)(schema, registry=EMPTY_REGISTRY)


def first_error(validator: Validator, instance: Any) -> str | None:
    """Where and by which keyword `instance` fails, as `/path: keyword`; None if it conforms.

    Raises BadSchema or TooExpensive where that cannot be said.
    """
    token = _steps.set([MAX_STEPS])
    try:
        error = next(iter(validator.iter_errors(instance)), None)
    except Unresolvable as problem:
        raise BadSchema(f"reference {str(problem.ref)[:200]!r} is not in the schema") from None
    except BadPattern as problem:
        raise BadSchema(str(problem)[:300]) from None
    except RecursionError:
        raise TooExpensive("nested too deep") from None
    finally:
        _steps.reset(token)
    return None if error is None else f"{_pointer(error.absolute_path)}: {error.validator}"


def _pointer(path: Any) -> str:
    return ("/" + "/".join(str(step) for step in path))[:200]


@cache
def _bounded(kind: type[Validator]) -> type[Validator]:
    keywords = {name: _counted(check) for name, check in kind.VALIDATORS.items()}
    for name, check in REPLACED.items():
        if name in keywords:
            keywords[name] = _counted(check)
    bounded: type[Validator] = jsonschema.validators.extend(kind, validators=keywords)  # type: ignore[no-untyped-call]
    return bounded


def _counted(check: Keyword) -> Keyword:
    def run(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        spend(1 + (len(value) if isinstance(value, list | dict) else 0))
        yield from check(validator, value, instance, schema) or ()

    return run


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Pattern:
    return Pattern(text)


def _matches(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _pattern(value).found_in(instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, value: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for text, subschema in value.items():
        spend(len(instance))
        for key, item in instance.items():
            if _pattern(text).found_in(key):
                yield from validator.descend(item, subschema, path=key, schema_path=text)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    declared = schema.get("properties", {})
    patterns = [_pattern(text) for text in schema.get("patternProperties", {})]
    for key, item in instance.items():
        spend(1 + len(patterns))
        if key in declared or any(pattern.found_in(key) for pattern in patterns):
            continue
        if value is False:
            yield ValidationError("has a property that is not declared")
        else:
            yield from validator.descend(item, value, path=key)


def _unique_items(validator: Any, value: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if value and isinstance(instance, list):
        spend(len(instance))
        if len({_canonical(item) for item in instance}) < len(instance):
            yield ValidationError("has equal items")


def _unevaluated(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # What it takes to know which keys were evaluated runs patterns in `re`, out of our reach.
    raise BadSchema("unevaluatedProperties and unevaluatedItems are not checked")
    yield


def _canonical(value: Any) -> str:
    return json.dumps(_same_number(value), sort_keys=True)


def _same_number(value: Any) -> Any:
    """JSON Schema takes 1 and 1.0 for the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_same_number(item) for item in value]
    if isinstance(value, dict):
        return {key: _same_number(item) for key, item in value.items()}
    return value


REPLACED: Mapping[str, Keyword] = {
    "pattern": _matches,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedProperties": _unevaluated,
    "unevaluatedItems": _unevaluated,
}
