"""What is read of a GPU, as data: `catalog/gpu.toml`."""

import dataclasses
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True)
class GpuReading:
    """One value of a reading: where NVML says it, and where it goes (the file's head explains each key)."""

    name: str
    family: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    column: str = ""
    spread: str = ""
    field: str = ""
    scope: int = 0
    gpm: str = ""
    times: int = 1
    divide: int = 1
    wraps: int = 0
    rate: str = ""

    def scaled(self, native: float) -> float:
        """NVML's number in the family's unit; exact where the result has an exact float."""
        number = native * self.times if self.times != 1 else native
        return number / self.divide if self.divide != 1 else number


@dataclasses.dataclass(frozen=True, slots=True)
class Xid:
    """What a code of an XID event means, and whose fault it is (application, driver, hardware, unknown)."""

    cause: str
    meaning: str


@cache
def _document() -> Mapping[str, Any]:
    return tomllib.loads(files("catalog").joinpath("gpu.toml").read_text())


@cache
def gpu_readings() -> tuple[GpuReading, ...]:
    """Everything that is read, in the order of the exposition."""
    return tuple(GpuReading(**entry) for entry in _document()["reading"])


@cache
def clock_event_bits() -> Mapping[str, int]:
    """Bit by name of a reason for which the clocks are held down."""
    return MappingProxyType(dict(_document()["clock_event_bits"]))


@cache
def xid_family() -> str:
    """The family that counts XID events by code."""
    return str(_document()["xid"]["family"])


@cache
def xids() -> Mapping[str, Xid]:
    """What each listed XID means, by its code as text; the last is `other`."""
    return MappingProxyType({code: Xid(**entry) for code, entry in _document()["xid"]["codes"].items()})


def xid_label(code: int) -> str:
    """The label value for an XID: its code if listed, else `other`."""
    return str(code) if str(code) in xids() else OTHER
