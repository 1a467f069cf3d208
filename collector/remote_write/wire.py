"""The messages of remote write 1.0 and 2.0.

They are declared here as data, from the published specifications, and not as generated code.  A series' name and
labels are encoded once; between two writes only its value and the time change.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Prometheus' mark for a series that has ended: a NaN of its own.
STALE = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
Labels = Sequence[tuple[str, str]]
KINDS = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5, "info": 6}

_TYPES = {"double": 1, "int64": 3, "string": 9, "message": 11, "uint32": 13, "enum": 5}
_FIELDS: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    # message: field: number, type (a message's name, or a scalar), repeated
    "v1.Label": {"name": (1, "string", False), "value": (2, "string", False)},
    "v1.Sample": {"value": (1, "double", False), "timestamp": (2, "int64", False)},
    "v1.TimeSeries": {"labels": (1, "v1.Label", True), "samples": (2, "v1.Sample", True)},
    "v1.WriteRequest": {"timeseries": (1, "v1.TimeSeries", True)},
    "v2.Metadata": {"type": (1, "enum", False), "help_ref": (3, "uint32", False), "unit_ref": (4, "uint32", False)},
    "v2.TimeSeries": {
        "labels_refs": (1, "uint32", True),
        "samples": (2, "v1.Sample", True),
        "metadata": (5, "v2.Metadata", False),
    },
    "v2.Request": {"symbols": (4, "string", True), "timeseries": (5, "v2.TimeSeries", True)},
}


@cache
def message(name: str) -> Any:
    """The class of one of the messages above."""
    return _classes()[name]


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tidegauge/remote_write.proto", package="tidegauge.remote_write")
    file.syntax = "proto3"
    for name, fields in _FIELDS.items():
        declared = file.message_type.add(name=name.replace(".", ""))
        for field, (number, kind, repeated) in fields.items():
            made = declared.field.add(name=field, number=number, label=3 if repeated else 1)
            made.type = _TYPES.get(kind, _TYPES["message"])  # type: ignore[assignment]
            if kind not in _TYPES:
                made.type_name = f".{file.package}.{kind.replace('.', '')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{file.package}.{name.replace('.', '')}") for name in _FIELDS}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer, not negative."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


class Encoder:
    """Encodes series of one and the same set of labels, over and over, as 1.0's `timeseries` entries."""

    def __init__(self, series: Iterable[Labels]) -> None:
        cls = message("v1.TimeSeries")
        self._labels = [
            cls(labels=[{"name": name, "value": value} for name, value in sorted(labels)]).SerializeToString()
            for labels in series
        ]
        self._heads: list[bytes] = []
        self._tail_length = -1

    def entries(self, values: Sequence[float], milliseconds: int) -> Iterator[bytes]:
        """One entry a series, in order; `values[i]` at Unix time `milliseconds`."""
        tail = b"\x10" + varint(milliseconds)
        if len(tail) != self._tail_length:
            self._tail_length = len(tail)
            self._heads = [_head(labels, len(tail)) for labels in self._labels]
        packed = struct.pack(f"<{len(values)}d", *values)
        for index, head in enumerate(self._heads):
            yield head + packed[8 * index : 8 * index + 8] + tail


def _head(labels: bytes, tail: int) -> bytes:
    """All of an entry up to the value: tags, lengths, and the labels."""
    sample = 1 + 8 + tail
    length = len(labels) + 1 + len(varint(sample)) + sample
    return b"\x0a" + varint(length) + labels + b"\x12" + varint(sample) + b"\x09"


def as_v2(body: bytes, families: Mapping[str, tuple[str, str, str]]) -> bytes:
    """A request of 1.0 as one of 2.0; `families` has kind, help and unit by the name of a sample."""
    old, new = message("v1.WriteRequest").FromString(body), message("v2.Request")()
    symbols: dict[str, int] = {"": 0}
    for series in old.timeseries:
        made = new.timeseries.add()
        for label in series.labels:
            made.labels_refs.extend(symbols.setdefault(text, len(symbols)) for text in (label.name, label.value))
            if label.name == "__name__" and (known := families.get(label.value)) is not None:
                kind, text, unit = known
                made.metadata.type = KINDS.get(kind, 0)
                made.metadata.help_ref = symbols.setdefault(text, len(symbols))
                made.metadata.unit_ref = symbols.setdefault(unit, len(symbols))
        made.samples.extend(series.samples)
    new.symbols.extend(symbols)
    return bytes(new.SerializeToString())
