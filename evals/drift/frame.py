"""A signal's rows as arrays, and their slices: what is grouped once and tested many times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evals.drift.settings import SignalKind, SignalSettings
from evals.drift.statistics import Floats, Ints

# What traffic is mixed from, whatever a signal is sliced by: its shares are held fixed in every comparison.
MIX = ("service", "tenant", "prompt_name")
# A version is a version of something: "2" of the prompt `support` is another than "2" of `summarise`.
PROMPT = "prompt"
OPTIONAL = ("session_id", "trace_id", "span_id")


@dataclass(frozen=True)
class Slice:
    """A part of the requests: the dimensions that define it, their values, and its rows in the frame."""

    by: tuple[str, ...]
    values: Mapping[str, str]
    rows: Ints

    @property
    def label(self) -> str:
        """`all`, or the values as text."""
        return slice_label(self.values)


def slice_label(values: Mapping[str, str]) -> str:
    """How a slice is written in metrics and tables.

    >>> slice_label({"tenant": "bank", "prompt_name": "support", "prompt_version": "2"})
    'tenant=bank,prompt_name=support,prompt_version=2'
    """
    return ",".join(f"{name}={value}" for name, value in values.items()) or "all"


def dimensions_of(signal: SignalSettings) -> tuple[str, ...]:
    """Columns that a signal's rows must bring: what it is sliced by, and what it is mixed from."""
    return tuple(dict.fromkeys([*signal.by, *MIX]))


class Frame:
    """Rows of a signal with a usable value, in the order of time.

    `values` are numbers; of a category they are places in `categories`.  `time` is unix seconds, `sessions` is -1
    where there is none.  NaN and infinities are left out and counted in `unusable`.
    """

    def __init__(self, table: pa.Table, signal: SignalSettings) -> None:
        self.signal = signal
        self.dimensions = dimensions_of(signal)
        self.kind = kind_of(table.column("value"), signal.kind)
        usable = _usable(table.column("value"), self.kind)
        self.unusable = table.num_rows - int(usable.sum())
        table = table.filter(pa.array(usable)) if self.unusable else table
        time = pc.cast(pc.cast(table.column("time"), pa.timestamp("us", tz="UTC")), pa.int64()).to_numpy() / 1e6
        order = np.argsort(time, kind="stable")
        self.table = table if bool(np.all(order == np.arange(len(order)))) else table.take(pa.array(order))
        self.time: Floats = time[order]
        self.categories: tuple[str, ...] = ()
        self.values: Floats = self._numbers()
        self.sessions = self._codes("session_id")[0]
        self._dimension = {name: self._codes(name) for name in self.dimensions}
        self._groups: dict[tuple[str, ...], Ints] = {}

    def __len__(self) -> int:
        return len(self.time)

    def between(self, start: float, end: float) -> Ints:
        """Rows in [start, end)."""
        return np.arange(*np.searchsorted(self.time, [start, end], side="left"), dtype=np.int64)

    def matching(self, values: Mapping[str, str]) -> Ints:
        """Rows of the slice with these values."""
        found = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            codes, labels = self._dimension.get(name) or self._codes(name)
            found &= codes == (labels.index(value) if value in labels else -2)
        return np.flatnonzero(found)

    def cells(self, without: str = "") -> Ints:
        """The finest part that each row belongs to, as a number; nulls are a value like others.

        `without` leaves a dimension out.
        """
        codes = [codes for name, (codes, _) in self._dimension.items() if name != without]
        return _combined([code + 1 for code in codes], len(self))

    def group(self, by: Sequence[str]) -> Ints:
        """A number for each combination of values; -1 where a value is unknown."""
        if tuple(by) not in self._groups:
            self._groups[tuple(by)] = self._group(by)
        return self._groups[tuple(by)]

    def _group(self, by: Sequence[str]) -> Ints:
        names = [name for dimension in by for name in _columns(dimension)]
        codes = [self.prompts[0] if name == PROMPT else self._dimension[name][0] for name in names]
        combined = _combined([code + 1 for code in codes], len(self))
        unknown = np.zeros(len(self), dtype=bool)
        for name, code in zip(names, codes, strict=True):
            unknown |= (code < 0) & (name != PROMPT)
        return np.where(unknown, -1, combined)

    def describe(self, by: Sequence[str], row: int) -> dict[str, str]:
        """The values of a row that define its slice."""
        values: dict[str, str] = {}
        for name in (name for dimension in by for name in _columns(dimension)):
            if name == PROMPT:
                values |= self.prompts[1][int(self.prompts[0][row])]
            else:
                codes, labels = self._dimension[name]
                values[name] = labels[int(codes[row])]
        return values

    @cached_property
    def prompts(self) -> tuple[Ints, list[dict[str, str]]]:
        """What a prompt version is a version of: the prompt's name, else the service; and its description."""
        names, name_labels = self._dimension["prompt_name"]
        services, service_labels = self._dimension["service"]
        labels: list[dict[str, str]] = [{}]
        labels += [{"prompt_name": name} for name in name_labels]
        labels += [{"service": name} for name in service_labels]
        codes = np.where(names >= 0, names + 1, np.where(services >= 0, services + 1 + len(name_labels), 0))
        return codes.astype(np.int64), labels

    def slices(self, rows: Ints, least: int, most: int) -> Iterator[Slice]:
        """All rows, and each combination of one or two dimensions' values with at least `least` of `rows`.

        At most `most`, the largest first, parents before children.  A slice with the rows of one of its parents is
        left out: it would be tested twice.
        """
        sizes: dict[tuple[str, ...], dict[int, int]] = {}
        yield Slice((), {}, rows)
        left = most - 1
        for by in _patterns(self.signal.by):
            codes = self.group(by)[rows]
            kinds, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
            order, ends = np.argsort(inverse, kind="stable"), np.cumsum(counts)
            sizes[by] = {}
            for place in np.argsort(-counts, kind="stable"):
                members = rows[order[ends[place] - counts[place] : ends[place]]]
                if kinds[place] < 0 or counts[place] < least or left == 0:
                    continue
                sizes[by][int(kinds[place])] = len(members)
                if not self._repeats_a_parent(by, members, sizes, len(rows)):
                    left -= 1
                    yield Slice(by, self.describe(by, int(members[0])), members)

    def _repeats_a_parent(
        self, by: tuple[str, ...], members: Ints, sizes: Mapping[tuple[str, ...], Mapping[int, int]], everything: int
    ) -> bool:
        first = members[:1]
        parents = [parent for parent in combinations(by, len(by) - 1) if parent]
        known = [sizes.get(parent, {}).get(int(self.group(parent)[first][0])) for parent in parents]
        return len(members) in [everything, *known]

    def _numbers(self) -> Floats:
        column = self.table.column("value")
        if self.kind is not SignalKind.CATEGORY:
            return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=float)
        codes, labels = _encoded(pc.cast(column, pa.string()))
        order = np.argsort(np.array(labels, dtype=object), kind="stable") if labels else np.zeros(0, dtype=np.int64)
        places = np.empty(len(labels), dtype=np.int64)
        places[order] = np.arange(len(labels))
        self.categories = tuple(labels[index] for index in order)
        return places[codes].astype(float)

    def _codes(self, name: str) -> tuple[Ints, list[str]]:
        if name not in self.table.column_names:
            return np.full(self.table.num_rows, -1, dtype=np.int64), []
        return _encoded(pc.cast(self.table.column(name), pa.string()))


def kind_of(column: pa.ChunkedArray, wanted: SignalKind) -> SignalKind:
    """How a column is compared: as asked, or by what it holds."""
    if wanted is not SignalKind.AUTO:
        return wanted
    if not _is_number(column.type):
        return SignalKind.CATEGORY
    distinct = {float(value) for value in pc.unique(column).slice(0, 4).to_pylist() if value is not None}
    return SignalKind.RATE if distinct <= {0.0, 1.0} and len(pc.unique(column)) <= 3 else SignalKind.NUMBER


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _usable(column: pa.ChunkedArray, kind: SignalKind) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if kind is SignalKind.CATEGORY:
        return np.asarray(pc.is_valid(column).to_numpy())
    values = pc.cast(column, pa.float64(), safe=False).to_numpy()
    usable = np.isfinite(values)
    return np.asarray(usable & ((values == 0) | (values == 1)) if kind is SignalKind.RATE else usable)


def _encoded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        empty = pa.array([], pa.dictionary(pa.int32(), pa.string()))
        encoded = encoded.unify_dictionaries().combine_chunks() if encoded.num_chunks else empty
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [str(label) for label in encoded.dictionary.to_pylist()]


def _combined(codes: Sequence[Ints], rows: int) -> Ints:
    """One number per distinct row of `codes` (each at least 0), counted without gaps."""
    combined = np.zeros(rows, dtype=np.int64)
    for code in codes:
        combined = combined * (int(code.max(initial=0)) + 1) + code
        combined = _renumbered(combined)
    return combined


def _renumbered(codes: Ints) -> Ints:
    """Codes without gaps, in the same order; by a table where one fits, which is ten times as fast as sorting."""
    size = int(codes.max(initial=0)) + 1
    if size > 4 * len(codes) + 1_000_000:
        return np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return (np.cumsum(np.bincount(codes, minlength=size) > 0) - 1)[codes].astype(np.int64)


def _columns(dimension: str) -> tuple[str, ...]:
    return (PROMPT, dimension) if dimension == "prompt_version" else (dimension,)


def _patterns(by: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in (1, 2):
        yield from combinations(by, size)
