"""A scrape without its values, and the scrapes of other targets that look the same."""

from collections.abc import Sequence
from operator import itemgetter
from threading import Lock
from typing import NamedTuple
from weakref import WeakValueDictionary

from collector.exposition.model import Layout

Strings = tuple[str, ...]


class Parts(NamedTuple):
    """Lines cut at their last space."""

    heads: Strings
    words: Strings


def split(lines: Sequence[str]) -> Parts:
    """The lines' parts."""
    cut = [line.rpartition(" ") for line in lines]
    return Parts(tuple(map(itemgetter(0), cut)), tuple(map(itemgetter(2), cut)))


class Skeleton:
    """What stays the same in an exposition in which nothing stands behind the series but values.

    `fixed` are the lines (comments, blank ones) whose last word is no value.
    """

    __slots__ = ("__weakref__", "_fixed", "_fixed_words", "_heads", "_openmetrics", "_samples", "layout")

    def __init__(self, parts: Parts, fixed: Sequence[int], layout: Layout, openmetrics: bool) -> None:
        self.layout = layout
        self._heads = parts.heads
        self._openmetrics = openmetrics
        self._fixed = _Chosen(fixed)
        self._fixed_words = self._fixed(parts.words)
        left_out = set(fixed)
        self._samples = _Chosen([place for place in range(len(parts.heads)) if place not in left_out])

    def fits(self, parts: Parts, openmetrics: bool) -> bool:
        """Whether the lines differ from this in nothing but words that may be values."""
        return (
            self._openmetrics is openmetrics
            and self._heads == parts.heads
            and self._fixed_words == self._fixed(parts.words)
        )

    def values(self, parts: Parts) -> list[float] | None:
        """The values of lines that fit; None if one is written in a way that float() takes and the formats do not."""
        words = self._samples(parts.words)
        joined = "".join(words)
        if not joined.isascii() or not joined.isprintable() or "_" in joined or "" in words:
            return None
        try:
            return list(map(float, words))
        except ValueError:
            return None

    def key(self) -> int:
        """The key of lines that have these heads."""
        return _key(self._heads, self._openmetrics)


def _key(heads: Strings, openmetrics: bool) -> int:
    return hash((heads, openmetrics))


class _Chosen:
    """The items at some places of a tuple, as a tuple; faster than a loop where there are many."""

    __slots__ = ("_get", "_places")

    def __init__(self, places: Sequence[int]) -> None:
        self._places = tuple(places)
        self._get = itemgetter(*places) if len(places) > 1 else None

    def __call__(self, items: Strings) -> Strings:
        if self._get is not None:
            taken: Strings = self._get(items)
            return taken
        return tuple(items[place] for place in self._places)


class SkeletonPool:
    """The skeletons that some parser remembers, so that a second target with the same engine finds its own.

    Holds none alive: one that nobody remembers any more is gone.  Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[int, Skeleton] = WeakValueDictionary()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, parts: Parts, openmetrics: bool) -> Skeleton | None:
        """A skeleton that the lines fit."""
        with self._lock:
            found = self._known.get(_key(parts.heads, openmetrics))
        return found if found is not None and found.fits(parts, openmetrics) else None

    def keep(self, skeleton: Skeleton, parts: Parts, openmetrics: bool) -> Skeleton:
        """The skeleton of these lines, or the one like it that is there already."""
        key = skeleton.key()
        with self._lock:
            found = self._known.get(key)
            if found is not None and found.fits(parts, openmetrics):
                return found
            self._known[key] = skeleton
            return skeleton
