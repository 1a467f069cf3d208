"""Which ids came lately, in ten bytes each: sorted arrays of fingerprints that nobody can aim at."""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

# An entry is 40 bits of a fingerprint above the low 24 bits of the commit that brought it.  A false match is found
# among 4 million entries once in 270,000 ids, and costs a look into the store.
SEQ_BITS = np.uint64(24)
SEQ_MASK = np.uint64((1 << 24) - 1)
# Ids of OpenTelemetry in hex, hashed all at once; others one by one.
USUAL_WIDTHS = (16, 32)
WORD = 4
# A binary search among half a million entries takes 200 ns, a look into their bitmap 15.
LEAST_MAPPED = 16_384
BITS_PER_ENTRY = 8


class Fingerprints:
    """Hashes rows of ids to 64 bits under a secret key, the low 24 of them zero.

    h = sum k_i x_i mod 2^64 over 32-bit words x_i (multilinear hashing; Lemire and Kaser, 2014).  Whatever two
    different ids are, they share the 40 high bits with a probability of about 2^-40.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        generator = np.random.Generator(np.random.PCG64(list(hashlib.blake2b(key, digest_size=32).digest())))
        self._factors = generator.integers(0, 2**64, (8, max(USUAL_WIDTHS) // WORD), np.uint64)

    def of(self, *columns: pa.ChunkedArray) -> Words:
        """A fingerprint a row, of all columns together; null is an id like any other."""
        found = sum((self._column(place, column) for place, column in enumerate(columns)), np.uint64(0))
        return np.asarray(found, np.uint64) & ~SEQ_MASK

    def _column(self, place: int, column: pa.ChunkedArray) -> Words:
        parts = [self._hashes(place, chunk) for chunk in column.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint64), *parts])

    def _hashes(self, place: int, ids: pa.Array) -> Words:
        offsets, text = _buffers(ids)
        widths = np.diff(offsets)
        hashes = np.empty(len(ids), np.uint64)
        left = np.ones(len(ids), bool)
        if not ids.null_count:
            for width in USUAL_WIDTHS:
                rows = widths == width
                if rows.any():
                    hashes[rows] = self._multilinear(place, text, offsets[:-1][rows], width)
                    left &= ~rows
        for row in np.flatnonzero(left):
            hashes[row] = self._single(place, ids[row].as_py())
        return hashes

    def _multilinear(self, place: int, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int32], width: int) -> Words:
        first, rows = int(starts[0]), len(starts)
        if int(starts[-1]) - first == (rows - 1) * width:
            letters = text[first : first + rows * width].reshape(rows, width)
        else:
            letters = text[starts[:, None] + np.arange(width, dtype=np.int32)]
        words = np.ascontiguousarray(letters).view(np.uint32).astype(np.uint64)
        return np.asarray(words @ self._factors[place, : width // WORD], np.uint64)

    def _single(self, place: int, text: str | None) -> int:
        if text is not None and len(data := text.encode()) in USUAL_WIDTHS:
            letters = np.frombuffer(data, np.uint8)
            return int(self._multilinear(place, letters, np.zeros(1, np.int32), len(data))[0])
        data = b"\0" if text is None else b"\1" + text.encode()
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._key, salt=bytes([place])).digest(), "big")


def _buffers(ids: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Offsets and letters of an array of strings."""
    _, offsets, text = ids.buffers()
    ends = np.frombuffer(offsets, np.int32, len(ids) + 1, ids.offset * 4) if offsets else np.zeros(1, np.int32)
    return ends, np.frombuffer(text, np.uint8) if text else np.empty(0, np.uint8)


class _Run:
    """Sorted entries, the newest's time, and for many of them a bitmap that tells most of what is not among them."""

    __slots__ = ("_bitmap", "_shift", "entries", "newest")

    def __init__(self, entries: Words, newest: float) -> None:
        self.entries = entries
        self.newest = newest
        self._bitmap: npt.NDArray[np.uint8] | None = None
        if entries.size >= LEAST_MAPPED:
            bits = int(entries.size * BITS_PER_ENTRY).bit_length()
            self._shift = np.uint64(64 - bits)
            flags = np.zeros(1 << bits, bool)
            flags[entries >> self._shift] = True
            self._bitmap = np.packbits(flags, bitorder="little")

    @property
    def nbytes(self) -> int:
        return self.entries.nbytes + (self._bitmap.nbytes if self._bitmap is not None else 0)

    def matches(self, wanted: Words) -> Iterator[tuple[Positions, Words]]:
        """Rows of `wanted` that are among the entries, with their commits; one match a row at a time."""
        rows = np.arange(wanted.size)
        if self._bitmap is not None:
            places = wanted >> self._shift
            bits = self._bitmap[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)
            rows = np.flatnonzero(bits & 1)
        at = np.searchsorted(self.entries, wanted[rows])
        while rows.size:
            inside = at < self.entries.size
            rows, at = rows[inside], at[inside]
            same = (self.entries[at] & ~SEQ_MASK) == wanted[rows]
            rows, at = rows[same], at[same]
            if rows.size:
                yield rows, self.entries[at] & SEQ_MASK
            at = at + 1


class RecentIds:
    """The commits that brought the fingerprints of a bounded window, the oldest forgotten first.

    Log-structured: a commit's entries are sorted and become a run; runs of similar size are merged.  So looking up
    costs a binary search in each of some twenty arrays, and keeping an entry about as many copies of eight bytes.
    """

    def __init__(self, most: int, seconds: float = float("inf")) -> None:
        self._most = most
        self._seconds = seconds
        self._longest = max(most // 8, 1)
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(run.entries.size for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Memory of the entries and their bitmaps."""
        return sum(run.nbytes for run in self._runs)

    def add(self, fingerprints: Words, seq: int | npt.NDArray[np.int64], now: float, once: bool = False) -> None:
        """Remembers fingerprints of the commit `seq`, or of one for each, committed at `now` at the latest.

        With `once`, one that comes repeatedly in a commit is kept once.
        """
        seqs = np.asarray(seq).astype(np.uint64)
        entries = np.sort((fingerprints | (seqs & SEQ_MASK))[-self._most :])
        if once:
            entries = entries[np.concatenate([[True], entries[1:] != entries[:-1]])] if entries.size else entries
        if entries.size:
            self._runs.append(_Run(entries, now))
            self._merge()
        self._forget(now)

    def find(self, fingerprints: Words, seq: int) -> tuple[Positions, Positions]:
        """Positions in `fingerprints` of those that may be known, and the commits, before `seq`, of each.

        A position comes as often as there are commits.  What is not found is not known.
        """
        found = [match for run in self._runs for match in run.matches(fingerprints)]
        positions = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
        commits = np.concatenate([np.empty(0, np.uint64), *(low for _, low in found)])
        # The commits' upper bits are those of the 16 million commits before `seq`.
        back = (np.uint64(seq) - commits) & SEQ_MASK
        return positions, np.int64(seq) - back.astype(np.int64)

    def _merge(self) -> None:
        runs = self._runs
        while len(runs) > 1 and runs[-2].entries.size <= 2 * runs[-1].entries.size:
            if runs[-2].entries.size + runs[-1].entries.size > self._longest:
                return
            newer, older = runs.pop(), runs.pop()
            merged = np.concatenate([older.entries, newer.entries])
            merged.sort(kind="stable")
            runs.append(_Run(merged, max(older.newest, newer.newest)))

    def _forget(self, now: float) -> None:
        total = len(self)
        while self._runs:
            oldest = self._runs[0]
            if total - oldest.entries.size < self._most and oldest.newest >= now - self._seconds:
                return
            total -= oldest.entries.size
            del self._runs[0]


def has_repeats(fingerprints: Words) -> bool:
    """Whether any comes twice."""
    ordered = np.sort(fingerprints)
    return bool((ordered[1:] == ordered[:-1]).any())
