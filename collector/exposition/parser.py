"""A parser that knows how a target's last scrape looked, since between two scrapes only values change."""

import re
from dataclasses import dataclass

from collector.exposition.model import (
    Exemplar,
    Labels,
    Layout,
    MalformedExposition,
    Metadata,
    Scrape,
    TooManyNewSeries,
    TooManySeries,
    unescaped,
)
from collector.exposition.skeleton import Parts, Skeleton, SkeletonPool, split

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*+)"[ \t]*(,|(?=}))')
_CLOSE = re.compile(r"[ \t]*}")
_REST = re.compile(r"[ \t]*([^ \t#]+)(?:[ \t]+([^ \t#]+))?[ \t]*(?:# (\{.*))?")
_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity)|[+-]?nan", re.ASCII | re.IGNORECASE
)
_COMMENT = re.compile(r"[ \t]*#[ \t]*(HELP|TYPE|UNIT)[ \t]+([^ \t]+)(?:[ \t]+(.*))?")
_TEXT_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
_OPENMETRICS_TYPES = (*_TEXT_TYPES[:4], "unknown", "info", "stateset", "gaugehistogram")


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Bounds on what one scrape may hold; past them it is refused as a whole."""

    max_series: int = 20_000
    max_line: int = 65_536
    max_name: int = 512
    max_label_value: int = 8_192
    max_labels: int = 128


class ExpositionParser:
    """Parses the scrapes of one target; remembers how its last one looked, and nothing else, between them.

    Parsers that are given the same `pool` share what they remember, so that a fleet of one engine costs the memory of
    one.  Not thread-safe; the pool is.
    """

    def __init__(self, limits: ParserLimits | None = None, pool: SkeletonPool | None = None) -> None:
        self.limits = limits or ParserLimits()
        self._pool = SkeletonPool() if pool is None else pool
        self._skeleton: Skeleton | None = None
        self._layout = Layout((), Metadata())

    @property
    def remembered(self) -> int:
        """Series in memory."""
        return len(self._layout.heads)

    def parse(self, text: str, *, openmetrics: bool | None = None, max_new: int | None = None) -> Scrape:
        """The samples of `text`; without `openmetrics` the closing `# EOF` tells which format it is.

        `max_new` bounds the series that the last good scrape did not have.  Raises MalformedExposition, TooManySeries
        or TooManyNewSeries; then what was remembered stays.
        """
        if openmetrics is None:
            openmetrics = text.endswith(("# EOF\n", "# EOF"))
        if openmetrics:
            text = _without_eof(text)
        lines = text.split("\n")
        if len(lines) > self.limits.max_series and sum(map(_is_sample, lines)) > self.limits.max_series:
            raise TooManySeries(self.limits.max_series)  # before any work is done for them
        parts = split(lines)
        scrape = self._fast(parts, openmetrics)
        if scrape is not None:
            return scrape
        return self._slow(lines, parts, openmetrics, len(lines) if max_new is None else max_new)

    def _fast(self, parts: Parts, openmetrics: bool) -> Scrape | None:
        """The scrape if nothing but values differs from one that was seen, else None."""
        skeleton = self._skeleton
        if skeleton is None or not skeleton.fits(parts, openmetrics):
            skeleton = self._pool.find(parts, openmetrics)
        values = skeleton.values(parts) if skeleton else None
        if skeleton is None or values is None:
            return None
        self._skeleton, self._layout = skeleton, skeleton.layout
        return Scrape(skeleton.layout, values, {}, {})

    def _slow(self, lines: list[str], parts: Parts, openmetrics: bool, max_new: int) -> Scrape:
        known = set(self._layout.heads)
        fresh = 0
        comments: list[int] = []
        heads: list[str] = []
        values: list[float] = []
        timestamps: dict[int, float] = {}
        exemplars: dict[int, Exemplar] = {}
        simple = True  # nothing but values behind the series
        for number, line in enumerate(lines, 1):
            if len(line) > self.limits.max_line:
                raise MalformedExposition(number, line, f"at most {self.limits.max_line} characters in a line")
            head, word = parts.heads[number - 1], parts.words[number - 1]
            if head in known and _NUMBER.fullmatch(word) is not None:
                heads.append(head)
                values.append(float(word))
                continue
            if not _is_sample(line):
                _check_comment(line, number, openmetrics)
                comments.append(number - 1)
                continue
            end = self._series_end(line, number)
            value, timestamp, exemplar = self._rest(line, end, number, openmetrics)
            if timestamp is not None:
                timestamps[len(values)] = timestamp
            if exemplar is not None:
                exemplars[len(values)] = exemplar
            found = line[:end].strip(" \t")
            simple = simple and head.strip(" \t") == found
            if found not in known:
                fresh += 1
                if fresh > max_new:
                    raise TooManyNewSeries(max_new)
            heads.append(head if head == found else found)
            values.append(value)
        self._remember(heads, _metadata([lines[place] for place in comments]))
        if simple:
            self._skeleton = self._pool.keep(Skeleton(parts, comments, self._layout, openmetrics), parts, openmetrics)
            self._layout = self._skeleton.layout
        return Scrape(self._layout, values, timestamps, exemplars, fresh)

    def _remember(self, heads: list[str], metadata: Metadata) -> None:
        """A new layout, if anything but values has changed."""
        self._skeleton = None
        if tuple(heads) != self._layout.heads or metadata != self._layout.metadata:
            self._layout = Layout(tuple(heads), metadata)

    def _series_end(self, line: str, number: int) -> int:
        """Where the text of the series that the line begins with ends."""
        start = len(line) - len(line.lstrip(" \t"))
        name = _NAME.match(line, start)
        if name is None:
            raise MalformedExposition(number, line, "a metric name ([a-zA-Z_:][a-zA-Z0-9_:]*)")
        if name.end() - start > self.limits.max_name:
            raise MalformedExposition(number, line, f"a metric name of at most {self.limits.max_name} characters")
        end = name.end()
        while end < len(line) and line[end] in " \t":
            end += 1
        labels: Labels = ()
        if line[end : end + 1] == "{":
            labels, end = self._labels(line, end + 1, number)
        else:
            end = name.end()
        if line[end : end + 1] not in (" ", "\t") and not labels:
            raise MalformedExposition(number, line, "a space and a value after the metric name")
        return end

    def _labels(self, line: str, position: int, number: int) -> tuple[Labels, int]:
        labels: dict[str, str] = {}
        while True:
            close = _CLOSE.match(line, position)
            if close is not None:
                return tuple(sorted(labels.items())), close.end()
            label = _LABEL.match(line, position)
            if label is None:
                raise MalformedExposition(number, line, f'name="value" or }} at column {position + 1}')
            name, raw = label.group(1), label.group(2)
            if name in labels:
                raise MalformedExposition(number, line, f"each label once, and {name!r} is there twice")
            if len(raw) > self.limits.max_label_value:
                limit = self.limits.max_label_value
                raise MalformedExposition(number, line, f"at most {limit} characters in the value of {name!r}")
            labels[name] = unescaped(raw)
            if len(labels) > self.limits.max_labels:
                raise MalformedExposition(number, line, f"at most {self.limits.max_labels} labels")
            position = label.end()

    def _rest(
        self, line: str, position: int, number: int, openmetrics: bool
    ) -> tuple[float, float | None, Exemplar | None]:
        """Value, timestamp in seconds and exemplar."""
        rest = _REST.fullmatch(line, position)
        if rest is None or (rest.group(3) and not openmetrics):
            raise MalformedExposition(number, line, "a value, at most a timestamp, and nothing more")
        value = _number(rest.group(1), line, number, "a number as value")
        timestamp = None
        if rest.group(2) is not None:
            timestamp = _number(rest.group(2), line, number, "a number as timestamp")
            if not openmetrics:
                timestamp /= 1000
        return value, timestamp, self._exemplar(rest.group(3), line, number)

    def _exemplar(self, text: str | None, line: str, number: int) -> Exemplar | None:
        if text is None:
            return None
        labels, end = self._labels(text, 1, number)
        words = text[end:].split()
        if len(words) not in (1, 2):
            raise MalformedExposition(number, line, "an exemplar's value, and at most a timestamp")
        numbers = [_number(word, line, number, "a number in the exemplar") for word in words]
        return Exemplar(labels, numbers[0], numbers[1] if len(numbers) == 2 else None)


def _number(word: str, line: str, number: int, expected: str) -> float:
    if _NUMBER.fullmatch(word) is None:
        raise MalformedExposition(number, line, f"{expected}, not {word[:40]!r}")
    return float(word)


def _is_sample(line: str) -> bool:
    start = line.lstrip(" \t")[:1]
    return start not in ("", "#")


def _without_eof(text: str) -> str:
    body, marker, rest = text.rpartition("# EOF")
    if not marker or rest.strip("\n") or (body and not body.endswith("\n")):
        lines = text.rstrip("\n").split("\n")
        raise MalformedExposition(len(lines), lines[-1], "'# EOF' as the last line: the answer was cut off")
    return body


def _check_comment(line: str, number: int, openmetrics: bool) -> None:
    match = _COMMENT.fullmatch(line)
    allowed = _OPENMETRICS_TYPES if openmetrics else _TEXT_TYPES
    if match is not None and match.group(1) == "TYPE" and (match.group(3) or "").strip() not in allowed:
        raise MalformedExposition(number, line, f"one of the types {', '.join(allowed)}")


def _metadata(comments: list[str]) -> Metadata:
    types: dict[str, str] = {}
    helps: dict[str, str] = {}
    units: dict[str, str] = {}
    for line in comments:
        match = _COMMENT.fullmatch(line)
        if match is None:
            continue
        word, name, text = match.group(1), match.group(2), match.group(3) or ""
        if word == "HELP":
            helps[name] = unescaped(text)
        elif word == "UNIT":
            units[name] = text
        else:
            types[name] = "untyped" if text.strip() == "unknown" else text.strip()
    return Metadata(types, helps, units)
