"""OTLP/JSON as messages, for what exporters write: several times as fast as protobuf's own reader, and no wider.

What this reader does not know for sure (a number in quotes where a double belongs, a field said twice, absurd nesting)
it leaves to `google.protobuf.json_format`, whose word is the last.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# OTLP/JSON writes these in hex, where protobuf's JSON has base64.
IDS = frozenset({"trace_id", "span_id", "parent_span_id"})
# json_format's limit is 100.
MAX_DEPTH = 90
INTEGERS = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
M = TypeVar("M", bound=Message)
Read: TypeAlias = Callable[[Any, int], Any]


class UnusualError(Exception):
    """JSON that only protobuf's own reader can judge."""


class _Field(NamedTuple):
    name: str
    read: Read
    repeated: bool
    oneof: str | None


def message_of(document: Mapping[str, Any], message: type[M]) -> M:
    """The message that the document says; fields that it does not know are left out.

    Raises UnusualError, and TypeError or ValueError where a value does not fit its field.
    """
    return message(**_fields(document, message.DESCRIPTOR, 0))


# The stubs know several kinds of descriptors.
def _fields(document: Any, descriptor: Any, depth: int) -> dict[str, Any]:
    if type(document) is not dict or depth > MAX_DEPTH:
        raise UnusualError
    known = _known(descriptor)
    made: dict[str, Any] = {}
    groups: list[str] = []
    for key, value in document.items():
        if value is None or (field := known.get(key)) is None:
            continue
        name, read, repeated, group = field
        if name in made or group in groups:
            raise UnusualError
        if group is not None:
            groups.append(group)
        if not repeated:
            made[name] = read(value, depth + 1)
        elif type(value) is list:
            made[name] = [read(item, depth + 1) for item in value]
        else:
            raise UnusualError
    return made


@cache
def _known(descriptor: Any) -> Mapping[str, _Field]:
    """The fields by both of their names."""
    found: dict[str, _Field] = {}
    for field in descriptor.fields:
        group = field.containing_oneof.name if field.containing_oneof else None
        made = _Field(field.name, _reader(field), field.is_repeated, group)
        found |= {field.json_name: made, field.name: made}
    return found


def _reader(field: FieldDescriptor) -> Read:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        descriptor = field.message_type
        return lambda value, depth: _fields(value, descriptor, depth)
    if field.enum_type is not None:
        numbers = {value.name: value.number for value in field.enum_type.values}
        return lambda value, depth: _enumerated(value, numbers)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _id if field.name in IDS else _unusual
    if field.type in INTEGERS:
        return _integer
    kinds = {
        FieldDescriptor.TYPE_STRING: (str,),
        FieldDescriptor.TYPE_BOOL: (bool,),
        FieldDescriptor.TYPE_DOUBLE: (float, int),
    }
    return _of_type(kinds.get(field.type, ()))


def _of_type(kinds: tuple[type, ...]) -> Read:
    def read(value: Any, _: int) -> Any:
        if type(value) not in kinds:
            raise UnusualError
        return value

    return read


def _integer(value: Any, _: int) -> int:
    if type(value) is int:
        return value
    if type(value) is str and value.isascii() and value.removeprefix("-").isdecimal():
        return int(value)
    raise UnusualError


def _enumerated(value: Any, numbers: Mapping[str, int]) -> int:
    number = value if type(value) is int else numbers.get(value) if type(value) is str else None
    if number is None:
        raise UnusualError
    return number


def _id(value: Any, _: int) -> bytes:
    if type(value) is not str:
        raise UnusualError
    try:
        return bytes.fromhex(value)
    except ValueError:
        # One byte is no id: this span is rejected, the others are not.
        return b"\0"


def _unusual(value: Any, _: int) -> Any:
    raise UnusualError
