"""Plots as inline SVG: no scripts, no styles of their own; classes are in the console's style sheet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from service.console import formats

WIDTH = 1000
LEFT, RIGHT = 58, 14
MAX_SPANS = 200
# Upper ends of axes, times a power of ten; the first values leave little space above the plot.
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series of a panel: points of unix seconds and value, with the name shown if a panel has several."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """One quantity over time; `top` is the least upper end of its axis, `show` writes a value with its unit."""

    title: str
    lines: Sequence[Line]
    show: Callable[[Any], str] = formats.number
    top: float = 1.0
    fixed: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment marked across all panels."""

    time: float
    label: str
    kind: str


@dataclass
class _Drawing:
    """Collects SVG elements; every text and attribute is escaped here."""

    width: float
    height: float
    label: str
    parts: list[Markup] = field(default_factory=list)

    def add(self, tag: str, text: str | None = None, /, **attributes: Any) -> None:
        named = Markup("").join(
            Markup(' {}="{}"').format(Markup(name.rstrip("_").replace("_", "-")), _short(value))
            for name, value in attributes.items()
        )
        if text is None:
            self.parts.append(Markup("<{}{}/>").format(Markup(tag), named))
        else:
            self.parts.append(Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), named, text))

    def titled(self, tag: str, title: str, /, **attributes: Any) -> None:
        """An element with a tooltip."""
        self.add("g", Markup("{}{}").format(self._made("title", title), self._made(tag, None, **attributes)))

    def _made(self, tag: str, text: str | None, /, **attributes: Any) -> Markup:
        self.add(tag, text, **attributes)
        return self.parts.pop()

    def svg(self) -> Markup:
        return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            _short(self.width), _short(self.height), self.label, Markup("").join(self.parts)
        )


def _short(value: Any) -> Any:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


# --- over time ------------------------------------------------------------------------------------------------------


def timeline(panels: Sequence[Panel], marks: Sequence[Mark], start: float, end: float, label: str) -> Markup:
    """Panels one below the other over the same time, with the marked moments through all of them."""
    height, gap, head, foot = 92, 26, 34, 24
    total = head + len(panels) * (height + gap) - gap + foot + 8
    drawing = _Drawing(WIDTH, total, label)
    end = max(end, start + 1e-3)

    def x(time: float) -> float:
        return LEFT + (min(max(time, start), end) - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    bottom = total - foot - 4
    if len(marks) > 1:
        first, last = x(marks[0].time), x(marks[-1].time)
        drawing.add("rect", x=first, y=head - 8, width=max(last - first, 1.0), height=bottom - head + 8, class_="life")
    _time_axis(drawing, x, start, end, head - 8, bottom)
    for index, panel in enumerate(panels):
        _panel(drawing, panel, x, head + index * (height + gap), height)
    _marks(drawing, marks, x, head, bottom)
    return drawing.svg()


def _panel(drawing: _Drawing, panel: Panel, x: Callable[[float], float], y: float, height: float) -> None:
    values = [value for line in panel.lines for _, value in line.points]
    top = panel.top if panel.fixed else _round_up(max([panel.top, *values]))
    drawing.add("text", panel.title, x=LEFT, y=y + 8.0, class_="panel-title")
    base, tall = y + height, height - 16

    def place(value: float) -> float:
        return base - min(max(value, 0.0), top) / top * tall

    for share in (0.0, 0.5, 1.0):
        level = place(top * share)
        drawing.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=level, y2=level, class_="grid" if share else "axis")
        drawing.add("text", panel.show(top * share), x=LEFT - 8, y=level + 3.5, class_="tick end")
    for number, line in enumerate(panel.lines):
        if not line.points:
            continue
        path = _path([(x(time), place(value)) for time, value in line.points])
        if len(panel.lines) == 1:
            first, last = x(line.points[0][0]), x(line.points[-1][0])
            drawing.add("path", d=f"{path}L{last:.1f},{base:.1f}L{first:.1f},{base:.1f}Z", class_="area")
        drawing.titled("path", line.name, d=path, class_=f"line c{number % 5}")
    if not values:
        drawing.add("text", "not said by this engine", x=WIDTH / 2, y=base - tall / 2 + 4, class_="tick middle")


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _marks(drawing: _Drawing, marks: Sequence[Mark], x: Callable[[float], float], head: float, bottom: float) -> None:
    taken = -1e9
    for mark in marks:
        place = x(mark.time)
        drawing.titled(
            "line", f"{mark.label}: {formats.clock(mark.time)}", x1=place, x2=place, y1=head - 12, y2=bottom,
            class_=f"mark {mark.kind}",
        )  # fmt: skip
        # Labels that would lie on one another go into a second row.
        row = 10 if place - taken > 74 else 20
        side = "end" if place > WIDTH - 80 else "start"
        drawing.add("text", mark.label, x=place + (-4 if side == "end" else 4), y=row, class_=f"mark-label {side}")
        taken = place if row == 10 else taken


def _time_axis(
    drawing: _Drawing, x: Callable[[float], float], start: float, end: float, top: float, bottom: float
) -> None:
    step = next((step for step in STEPS if (end - start) / step <= 9), STEPS[-1])
    time = math.ceil(start / step) * step
    while time <= end:
        moment = datetime.fromtimestamp(time, UTC)
        text = f"{moment:%H:%M:%S}" if step < 60 else f"{moment:%H:%M}"
        drawing.add("line", x1=x(time), x2=x(time), y1=top, y2=bottom, class_="grid")
        drawing.add("text", text, x=x(time), y=bottom + 16, class_="tick middle")
        time += step


def _round_up(value: float) -> float:
    if value <= 0 or not math.isfinite(value):
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(
        step * magnitude for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * magnitude >= value * 0.999
    )


def rate(rows: Sequence[Mapping[str, Any]], start: float, end: float, width: float) -> Markup:
    """Requests in each interval as bars, failures marked; `rows` as `Pages.rate` gives them."""
    drawing = _Drawing(WIDTH, 132, "Requests over time")
    base, tall = 106.0, 88.0
    most = _round_up(max([1.0, *(row["requests"] for row in rows)]) / width) * width

    def x(time: float) -> float:
        return LEFT + (time - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    for share in (0.0, 0.5, 1.0):
        level = base - tall * share
        drawing.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=level, y2=level, class_="grid" if share else "axis")
        drawing.add("text", formats.number(most * share / width), x=LEFT - 8, y=level + 3.5, class_="tick end")
    _time_axis(drawing, x, start, end, base - tall, base)
    for row in rows:
        if row["time"].timestamp() >= end:
            continue  # a sender's clock is ahead
        left, right = x(max(row["time"].timestamp(), start)), x(min(row["time"].timestamp() + width, end))
        title = f"{formats.clock(row['time'])}: {row['requests']} requests, {row['failed_requests']} failed"
        size = row["requests"] / most * tall
        failed = max(row["failed_requests"] / most * tall, 2.0) if row["failed_requests"] else 0.0
        wide = max(right - left - 1.5, 1.0)
        drawing.titled("rect", title, x=left, y=base - size, width=wide, height=size, class_="bar")
        if failed:
            drawing.titled(
                "rect", title, x=left, y=base - failed, width=wide, height=max(failed, 2.0), class_="bar bad"
            )
    return drawing.svg()


def effect(history: Sequence[Mapping[str, Any]]) -> Markup | None:
    """An effect with its interval from round to round; None for fewer than two rounds."""
    rows = sorted((row for row in history if row["effect_size"] is not None), key=lambda row: row["round_time"])
    if len(rows) < 2:
        return None
    drawing = _Drawing(WIDTH, 190, "Effect over time")
    base, tall = 160.0, 146.0
    ends: list[float] = [
        row[name] for row in rows for name in ("effect_size", "effect_low", "effect_high") if row[name] is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    high = high if high > low else low + 1.0
    start: float = rows[0]["round_time"].timestamp()
    end: float = max(rows[-1]["round_time"].timestamp(), start + 1.0)

    def x(time: float) -> float:
        return LEFT + (time - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return base - (value - low) / (high - low) * tall

    for value in sorted({low, 0.0, high}):
        drawing.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid" if value else "axis")
        drawing.add("text", formats.number(value), x=LEFT - 8, y=y(value) + 3.5, class_="tick end")
    _time_axis(drawing, x, start, end, base - tall, base)
    band = [row for row in rows if row["effect_low"] is not None and row["effect_high"] is not None]
    if band:
        upper = [(x(row["round_time"].timestamp()), y(row["effect_high"])) for row in band]
        lower = [(x(row["round_time"].timestamp()), y(row["effect_low"])) for row in reversed(band)]
        drawing.add("path", d=_path([*upper, *lower]) + "Z", class_="band")
    line = [(x(row["round_time"].timestamp()), y(row["effect_size"])) for row in rows]
    drawing.add("path", d=_path(line), class_="line c0")
    return drawing.svg()


# --- spans ----------------------------------------------------------------------------------------------------------


def waterfall(spans: Sequence[Mapping[str, Any]]) -> Markup:
    """Spans as bars over time, children indented; an engine's span shows its queue, prefill and decode."""
    shown = _nested(spans)[:MAX_SPANS]
    start: float = min(span["start_time"].timestamp() for span, _ in shown)
    end: float = max(max(span["end_time"].timestamp() for span, _ in shown), start + 1e-6)
    left, row = 330, 26
    drawing = _Drawing(WIDTH, len(shown) * row + 30, "Spans over time")

    def x(time: float) -> float:
        return left + (time - start) / (end - start) * (WIDTH - left - 74)

    bottom = len(shown) * row + 6
    step = next((step for step in STEPS if (end - start) / step <= 7), STEPS[-1])
    offset = 0.0
    while offset <= end - start:
        drawing.add("line", x1=x(start + offset), x2=x(start + offset), y1=0, y2=bottom, class_="grid")
        drawing.add("text", formats.seconds(offset) if offset else "0", x=x(start + offset), y=bottom + 16,
                    class_="tick middle")  # fmt: skip
        offset += step
    for index, (span, depth) in enumerate(shown):
        _span(drawing, span, depth, x, index * row + 4)
    return drawing.svg()


def _span(drawing: _Drawing, span: Mapping[str, Any], depth: int, x: Callable[[float], float], y: float) -> None:
    begin, finish = span["start_time"].timestamp(), span["end_time"].timestamp()
    indent = min(depth, 8) * 12
    name = str(span["name"] or span["kind"] or "span")
    shown = name if len(name) <= 30 - indent // 8 else name[: 29 - indent // 8] + "…"
    drawing.add("text", shown, x=4 + indent, y=y + 12, class_="span-name")
    drawing.add("text", span["vantage"] or span["kind"] or "", x=316, y=y + 12, class_="tick end")
    title = f"{name} ({span['service'] or 'service not said'}): {formats.seconds(finish - begin)}"
    kind = "bad" if span["status"] == "error" else str(span["vantage"] or "other")
    kind = kind if kind in ("bad", "client", "engine", "gateway", "frontend") else "other"
    wide = max(x(finish) - x(begin), 2.0)
    drawing.titled("rect", title, x=x(begin), y=y, width=wide, height=16, rx=2, class_=f"span {kind}")
    time = begin
    for phase in ("queue", "prefill", "decode"):
        took = span[f"{phase}_time_s"]
        if span["vantage"] != "engine" or took is None or took <= 0:
            continue
        last = min(time + took, finish)
        drawing.titled(
            "rect", f"{phase}: {formats.seconds(took)}", x=x(time), y=y, width=max(x(last) - x(time), 1.0), height=16,
            class_=f"phase {phase}",
        )  # fmt: skip
        time = last
    drawing.add("text", formats.seconds(finish - begin), x=min(x(finish) + 6, WIDTH - 66.0), y=y + 12, class_="tick")


def _nested(spans: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """Each span with its depth, parents before children; what has no parent here stands at the top."""
    ids = {span["span_id"] for span in spans}
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    for span in spans:
        parent = span["parent_span_id"] if span["parent_span_id"] in ids else None
        below.setdefault(parent, []).append(span)
    ordered: list[tuple[Mapping[str, Any], int]] = []
    seen: set[str] = set()
    waiting = [(span, 0) for span in reversed(below.get(None, []))]
    while waiting:
        span, depth = waiting.pop()
        if span["span_id"] in seen:
            continue
        seen.add(span["span_id"])
        ordered.append((span, depth))
        waiting.extend((child, depth + 1) for child in reversed(below.get(span["span_id"], [])))
    # Spans that are each other's parents hang on none of the above.
    ordered.extend((span, 0) for span in spans if span["span_id"] not in seen)
    return ordered


# --- distributions --------------------------------------------------------------------------------------------------


def distribution(evidence: Any) -> Markup | None:
    """Reference and current side by side: bins of numbers, categories, or a share; None where nothing is known."""
    both = evidence.get("distributions") if isinstance(evidence, dict) else None
    if not isinstance(both, dict) or not {"reference", "current"} <= both.keys():
        return None
    before, after = both["reference"], both["current"]
    if isinstance(before, list) and isinstance(after, list):
        return _histogram(both.get("edges") or [], before, after)
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    if {"hits", "n"} <= before.keys() & after.keys():
        rows = [("share", _share(before), _share(after))]
        return _pairs(rows, lambda part: f"{part['hits']:,} of {part['n']:,}", before, after)
    sums = sum(before.values()) or 1, sum(after.values()) or 1
    names = sorted({*before, *after}, key=lambda name: -(before.get(name, 0) / sums[0] + after.get(name, 0) / sums[1]))
    return _pairs([(name, before.get(name, 0) / sums[0], after.get(name, 0) / sums[1]) for name in names[:20]])


def _share(part: Mapping[str, Any]) -> float:
    return float(part["hits"]) / part["n"] if part["n"] else 0.0


def _pairs(
    rows: Sequence[tuple[str, float, float]],
    note: Callable[[Mapping[str, Any]], str] | None = None,
    *parts: Mapping[str, Any],
) -> Markup:
    drawing = _Drawing(WIDTH, len(rows) * 52 + 8, "Distribution, reference and current")
    most = max([0.05, *(max(before, after) for _, before, after in rows)])
    for index, (name, *shares) in enumerate(rows):
        y = index * 52 + 4
        drawing.add("text", name[:28], x=200, y=y + 24, class_="span-name end")
        for line, (kind, share) in enumerate(zip(("reference", "current"), shares, strict=True)):
            wide = max(share / most * 560, 1.0)
            drawing.add("rect", x=214, y=y + line * 20, width=wide, height=17, rx=2, class_=f"bar {kind}")
            text = formats.percent(share) + (f"  ({note(parts[line])})" if note else "")
            drawing.add("text", text, x=222 + wide, y=y + line * 20 + 13, class_="tick")
    return drawing.svg()


def _histogram(edges: Sequence[float], before: Sequence[float], after: Sequence[float]) -> Markup:
    drawing = _Drawing(WIDTH, 232, "Distribution, reference and current")
    base, tall, bins = 196.0, 176.0, max(len(before), len(after), 1)
    most = _round_up(max([1e-6, *before, *after]))
    wide = (WIDTH - LEFT - RIGHT) / bins
    for share in (0.0, 0.5, 1.0):
        level = base - share * tall
        drawing.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=level, y2=level, class_="grid" if share else "axis")
        drawing.add("text", formats.percent(most * share), x=LEFT - 6, y=level + 3.5, class_="tick end")
    for offset, kind, shares in ((0.08, "reference", before), (0.5, "current", after)):
        for index, share in enumerate(shares):
            size = share / most * tall
            title = f"{kind}, {_bin(edges, index)}: {formats.percent(share)}"
            drawing.titled(
                "rect", title, x=LEFT + (index + offset) * wide, y=base - size, width=wide * 0.42, height=size,
                class_=f"bar {kind}",
            )  # fmt: skip
    every = -(-len(edges) // 9) or 1
    for index in range(0, len(edges), every):
        drawing.add(
            "text", formats.number(edges[index]), x=LEFT + (index + 1) * wide, y=base + 16, class_="tick middle"
        )
    return drawing.svg()


def _bin(edges: Sequence[float], index: int) -> str:
    if not edges:
        return f"bin {index + 1}"
    if index == 0:
        return f"below {formats.number(edges[0])}"
    if index >= len(edges):
        return f"from {formats.number(edges[-1])}"
    return f"{formats.number(edges[index - 1])} to {formats.number(edges[index])}"


def interval(row: Mapping[str, Any]) -> Markup | None:
    """A mean with its interval on the line from 0 to 1; None for what does not lie there."""
    mean = row.get("mean")
    if mean is None or not 0 <= mean <= 1:
        return None
    low, high = row.get("ci_low"), row.get("ci_high")
    drawing = _Drawing(160, 16, str(escape(f"mean {mean:.3f}")))
    drawing.add("line", x1=4, x2=156, y1=8, y2=8, class_="axis")
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        drawing.add("rect", x=4 + low * 152, y=4, width=max((high - low) * 152, 1.0), height=8, rx=4, class_="range")
    drawing.add("circle", cx=4 + mean * 152, cy=8, r=3.5, class_="dot")
    return drawing.svg()
