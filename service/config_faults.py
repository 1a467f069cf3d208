"""What is wrong with a configuration, in words: the key, the value as it was written, what to write instead."""

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, SecretStr, ValidationError

# A telling piece of a pattern, what the pattern stands for, and an example.
SHAPES = {
    "(ms|s|m|h|d)": ("duration", "30s"),
    "(KB|MB|GB": ("size", "300MB"),
    "https?://": ("URL", "http://host:8000"),
}
MISSING = "is not set, and has no default"
WORDS = {
    "byte_size": "is no size; write for example '16MiB'",
    "byte_size_unit": "is no size; write for example '16MiB'",
    "bool_parsing": "is not true or false",
    "bool_type": "is not true or false",
    "dict_type": "is no mapping; write keys below it",
    "float_parsing": "is no number",
    "float_type": "is no number",
    "int_from_float": "is no whole number",
    "int_parsing": "is no whole number",
    "int_type": "is no whole number",
    "list_type": "is no list; write [it] or lines with '-'",
    "mapping_type": "is no mapping; write keys below it",
    "model_type": "is no mapping; write keys below it",
    "sequence_str": "is no list; write [it] or lines with '-'",
    "sequence_type": "is no list; write [it] or lines with '-'",
    "string_type": "is no text; put it in quotes",
    "too_short": "is empty",
    "tuple_type": "is no list; write [it] or lines with '-'",
}


def faults_of(error: ValidationError, model: type[BaseModel], written: Any) -> dict[str, str]:
    """A sentence for each place that is wrong; values are quoted as in `written`, secrets not at all."""
    found: dict[str, str] = {}
    meant: set[str] = set()
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"] if not (isinstance(part, str) and "[" in part))
        where, close = place(location), None
        if item["type"] == "extra_forbidden":
            fields = _siblings(model, location)
            close = next(iter(difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.5)), None)
            fault = f"there is no such key{_hint(close, fields)}"
        else:
            fault = _fault(dict(item), location, model, written)
        if close is not None:
            meant.add(place((*location[:-1], close)))
        found[where] = f"{found[where]}; {fault}" if where in found else fault
    return {where: fault for where, fault in found.items() if not _follows(where, fault, found, meant)}


def _follows(where: str, fault: str, found: Mapping[str, str], meant: set[str]) -> bool:
    """Whether a fault is only the consequence of another: a key that was misspelt, a list without its bad entries."""
    if fault == MISSING:
        return where in meant
    return fault == WORDS["too_short"] and any(other.startswith(f"{where}[") for other in found)


def place(location: tuple[Any, ...]) -> str:
    """The key's path, as in `scrape.targets[0].url`."""
    where = ""
    for part in location:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    return where


def _fault(item: Mapping[str, Any], location: tuple[Any, ...], model: type[BaseModel], written: Any) -> str:
    if item["type"] == "missing":
        return MISSING
    if item["type"] == "invalid_key":
        return "a key is text; put it in quotes"
    original = _at(written, location)
    message = str(item["msg"]).removeprefix("Value error, ")
    if _holds(_annotation(model, location), SecretStr):
        return "the value (not shown: it is a secret) is no text; put it in quotes"
    if item["type"] == "value_error" or isinstance(original, dict | list | None):
        # A value from the environment may be a secret in the wrong place: the variable's name tells enough.
        return message.replace(str(item["input"]), str(original)) if _is_variable(original) else _said(item, message)
    return f"{original!r} {_said(item, message)}"


def _said(item: Mapping[str, Any], message: str) -> str:
    if item["type"] in WORDS:
        return WORDS[item["type"]]
    if item["type"] == "string_pattern_mismatch":
        pattern = item["ctx"]["pattern"]
        shape = next((shape for piece, shape in SHAPES.items() if piece in pattern), None)
        return f"is no {shape[0]}; write for example {shape[1]!r}" if shape else f"does not match {pattern}"
    return message.replace("Input should be", "is not", 1).replace("should be", "is not", 1)


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _at(document: Any, location: tuple[Any, ...]) -> Any:
    """The value at a place of the document; None if there is none."""
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _siblings(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys that there are beside the one at a place."""
    parent = _inner(_annotation(model, location[:-1]))
    return list(parent.model_fields) if parent is not None else []


def _hint(close: str | None, fields: list[str]) -> str:
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; there are {', '.join(sorted(fields))}" if fields else ""


def _annotation(model: Any, location: tuple[Any, ...]) -> Any:
    """The type of what stands at a place of the configuration; None where the types do not tell."""
    annotation: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        holder = _inner(annotation)
        field = holder.model_fields.get(part) if holder is not None else None
        if field is None:
            return None
        annotation = field.annotation
    return annotation


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model inside Optional, list, tuple or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) is Mapping or not typing.get_args(annotation):
        return None
    return next((inner for item in typing.get_args(annotation) if (inner := _inner(item)) is not None), None)


def _holds(annotation: Any, kind: type[Any]) -> bool:
    return annotation is kind or (
        typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated)
        and any(_holds(item, kind) for item in typing.get_args(annotation))
    )
