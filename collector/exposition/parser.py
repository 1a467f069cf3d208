"""A parser that knows a target's series by their raw text, since between two scrapes only values change."""

import re
from dataclasses import dataclass

from collector.exposition.model import (
    Exemplar,
    Labels,
    Layout,
    MalformedExposition,
    Metadata,
    Scrape,
    Series,
    TooManySeries,
)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*+)"[ \t]*(,|(?=}))')
_CLOSE = re.compile(r"[ \t]*}")
_REST = re.compile(r"[ \t]*([^ \t#]+)(?:[ \t]+([^ \t#]+))?[ \t]*(?:# (\{.*))?")
_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity)|[+-]?nan", re.ASCII | re.IGNORECASE
)
_COMMENT = re.compile(r"[ \t]*#[ \t]*(HELP|TYPE|UNIT)[ \t]+([^ \t]+)(?:[ \t]+(.*))?")
_ESCAPE = re.compile(r"\\(.)")
_TEXT_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
_OPENMETRICS_TYPES = (*_TEXT_TYPES[:4], "unknown", "info", "stateset", "gaugehistogram")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Bounds on what one scrape may hold; past them it is refused as a whole."""

    max_series: int = 20_000
    max_line: int = 65_536
    max_name: int = 512
    max_label_value: int = 8_192
    max_labels: int = 128


class ExpositionParser:
    """Parses the scrapes of one target; remembers its series, and nothing else, between them.

    The memory is bounded: past twice `max_series` entries it begins anew.  Not thread-safe.
    """

    def __init__(self, limits: ParserLimits | None = None) -> None:
        self.limits = limits or ParserLimits()
        self._known: dict[str, Series] = {}
        self._interned: dict[tuple[str, Labels], Series] = {}
        self._keys: list[str] = []
        self._comments: list[str] = []
        self._openmetrics = False
        self._layout = Layout((), Metadata())

    @property
    def remembered(self) -> int:
        """Raw series texts in memory."""
        return len(self._known)

    def parse(self, text: str, *, openmetrics: bool | None = None) -> Scrape:
        """The samples of `text`; without `openmetrics` the closing `# EOF` tells which format it is.

        Raises MalformedExposition or TooManySeries.
        """
        if openmetrics is None:
            openmetrics = text.endswith(("# EOF\n", "# EOF"))
        if openmetrics:
            text = _without_eof(text)
        if max(len(self._known), len(self._interned)) > 2 * self.limits.max_series:
            self._known, self._interned = {}, {}
        lines = text.split("\n")
        scrape = self._fast(lines, openmetrics)
        return self._slow(lines, openmetrics) if scrape is None else scrape

    def _fast(self, lines: list[str], openmetrics: bool) -> Scrape | None:
        """The scrape if every line is a known comment or a known series and a value, else None."""
        known, seen = self._known, set(self._comments)
        keys: list[str] = []
        words: list[str] = []
        comments: list[str] = []
        for line in lines:
            key, _, word = line.rpartition(" ")
            if key in known:
                keys.append(key)
                words.append(word)
            elif line in seen:
                comments.append(line)
            elif line:
                return None
        joined = "".join(words)
        if not joined.isascii() or not joined.isprintable() or "_" in joined or "" in words:
            return None  # float() would take more than the formats do
        try:
            values = list(map(float, words))
        except ValueError:
            return None
        if keys != self._keys or comments != self._comments or openmetrics is not self._openmetrics:
            self._remember(keys, comments, openmetrics, [known[key] for key in keys])
        return Scrape(self._layout, values, {}, {})

    def _slow(self, lines: list[str], openmetrics: bool) -> Scrape:
        keys: list[str] = []
        comments: list[str] = []
        series: list[Series] = []
        values: list[float] = []
        timestamps: dict[int, float] = {}
        exemplars: dict[int, Exemplar] = {}
        for number, line in enumerate(lines, 1):
            if len(line) > self.limits.max_line:
                raise MalformedExposition(number, line, f"at most {self.limits.max_line} characters in a line")
            if line.lstrip(" \t").startswith("#"):
                _check_comment(line, number, openmetrics)
                comments.append(line)
                continue
            if not line.strip(" \t"):
                continue
            if len(values) >= self.limits.max_series:
                raise TooManySeries(self.limits.max_series)
            found, end = self._series(line, number)
            value, timestamp, exemplar = self._rest(line, end, number, openmetrics)
            if timestamp is not None:
                timestamps[len(values)] = timestamp
            if exemplar is not None:
                exemplars[len(values)] = exemplar
            key = line.rpartition(" ")[0]
            if key.rstrip(" \t") == line[:end].rstrip(" \t"):  # nothing but a value behind the series
                self._known[key] = found
            keys.append(line[:end])
            series.append(found)
            values.append(value)
        self._remember(keys, comments, openmetrics, series)
        return Scrape(self._layout, values, timestamps, exemplars)

    def _remember(self, keys: list[str], comments: list[str], openmetrics: bool, series: list[Series]) -> None:
        """A new layout, if anything but values has changed."""
        same_comments = comments == self._comments and openmetrics is self._openmetrics
        metadata = self._layout.metadata if same_comments else _metadata(comments)
        if same_comments and series == list(self._layout.series):
            self._keys = keys
            return
        if len(series) > self.limits.max_series:
            raise TooManySeries(self.limits.max_series)
        first: set[Series] = set()
        repeated = set()
        for position, one in enumerate(series):
            if one in first:
                repeated.add(position)
            first.add(one)
        self._layout = Layout(tuple(series), metadata, frozenset(repeated))
        self._keys, self._comments, self._openmetrics = keys, comments, openmetrics

    def _series(self, line: str, number: int) -> tuple[Series, int]:
        """The series that the line begins with, and where its text ends."""
        start = len(line) - len(line.lstrip(" \t"))
        name = _NAME.match(line, start)
        if name is None:
            raise MalformedExposition(number, line, "a metric name ([a-zA-Z_:][a-zA-Z0-9_:]*)")
        if name.end() - start > self.limits.max_name:
            raise MalformedExposition(number, line, f"a metric name of at most {self.limits.max_name} characters")
        end = name.end()
        while end < len(line) and line[end] in " \t":
            end += 1
        if line[end : end + 1] == "{":
            labels, end = self._labels(line, end + 1, number)
        else:
            labels, end = (), name.end()
        if line[end : end + 1] not in (" ", "\t") and not labels:
            raise MalformedExposition(number, line, "a space and a value after the metric name")
        key = (name.group(), labels)
        return self._interned.setdefault(key, Series(*key)), end

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
            labels[name] = _unescaped(raw) if "\\" in raw else raw
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


def _unescaped(raw: str) -> str:
    # Unknown escapes stay as they are, as in Prometheus.
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group()), raw)


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
            helps[name] = _unescaped(text) if "\\" in text else text
        elif word == "UNIT":
            units[name] = text
        else:
            types[name] = "untyped" if text.strip() == "unknown" else text.strip()
    return Metadata(types, helps, units)
