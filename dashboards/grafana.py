"""Panels and dashboards for Grafana 11, through grafanalib.

grafanalib 0.7.1 writes schemaVersion 12 (Grafana then migrates, and loses `graphTooltip`), `maxDataPoints: 100` on
every panel, and outdated shapes of heatmap, bar gauge, stat thresholds and table cells.  So grafanalib gives the
envelope of a dashboard and its panels, and this file gives what is inside: `options`, `fieldConfig` and queries in
the shape of schemaVersion 41.  A test holds the result against the models of grafana-foundation-sdk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from grafanalib import core

from catalog.links import DASHBOARDS, dashboard_path, dashboard_uid, requests_path
from dashboards.queries import per_second
from dashboards.units import unit_of

Json = dict[str, Any]

SCHEMA_VERSION = 41
TAG = "tidegauge"
DATASOURCE: Mapping[str, str] = MappingProxyType({"type": "prometheus", "uid": "${datasource}"})
GREEN, YELLOW, RED = "green", "yellow", "red"
# States of a gauge that is 1 while something answers.
ANSWERS: Mapping[int, tuple[str, str]] = MappingProxyType({0: ("down", RED), 1: ("up", GREEN)})
_COLUMNS = 24
_REGEX_ALL = ".*"


class UnknownPanelError(ValueError):
    """A panel's `next` names a panel that does not exist."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.  Made by the functions below; `next` is "Panel" of the same dashboard or "Dashboard / Panel"."""

    kind: str
    title: str
    description: str
    queries: Mapping[str, str]  # legend -> PromQL
    unit: str
    warn: float | None = None
    bad: float | None = None
    next: str = ""
    width: int = 8
    height: int = 8
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)  # fieldConfig.defaults.custom
    defaults: Json = field(default_factory=dict)  # fieldConfig.defaults, over what is common
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    query: Json = field(default_factory=dict)  # on every query
    repeat: str = ""  # the variable for each value of which there is one such panel


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values of `label` of `metric`."""

    name: str
    metric: str
    label: str

    @property
    def expr(self) -> str:
        """What Grafana asks for the values."""
        return f"label_values({self.metric}, {self.label})"


@dataclass(frozen=True)
class Row:
    """Panels under a heading, laid out from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """One dashboard; `key` is one of `catalog.links.DASHBOARDS`."""

    key: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    since: str = "now-3h"

    @property
    def title(self) -> str:
        """As shown in Grafana."""
        return DASHBOARDS[self.key]

    def panels(self) -> Iterator[Panel]:
        """All panels in the order in which they stand."""
        for row in self.rows:
            yield from row.panels


def timeseries(title: str, description: str, queries: str | Mapping[str, str], **settings: Any) -> Panel:
    """Lines over time; `stack=True` piles them up, `band` is the legends (as patterns) between which to fill."""
    stack, band = settings.pop("stack", False), settings.pop("band", None)
    threshold = "line" if settings.get("warn") is not None or settings.get("bad") is not None else "off"
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stack else 0,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": threshold},
    }
    options = {"legend": _legend(["mean", "max", "lastNotNull"]), "tooltip": {"mode": "multi", "sort": "desc"}}
    panel = _panel("timeseries", title, description, queries, options=options, custom=custom, **settings)
    return panel if band is None else replace(panel, overrides=(*panel.overrides, *_band(*band)))


def rate(title: str, description: str, metric: str, by: str = "", where: str = "", **settings: Any) -> Panel:
    """Lines with a counter's rate by labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ")) if by else title.lower()
    return timeseries(title, description, per_second(metric, by, where), legend=legend, **settings)


def stat(title: str, description: str, queries: str | Mapping[str, str], **settings: Any) -> Panel:
    """One number with its recent course."""
    options = {
        "graphMode": "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "orientation": "auto",
        "reduceOptions": _reduce(),
    }
    return _panel("stat", title, description, queries, options=options, **{"width": 4, "height": 4, **settings})


def bar_gauge(title: str, description: str, queries: str | Mapping[str, str], **settings: Any) -> Panel:
    """One bar a series, with the last value."""
    options = {
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 300,
        "legend": {**_legend([]), "showLegend": False},
        "orientation": "horizontal",
        "reduceOptions": _reduce(),
    }
    return _panel("bargauge", title, description, queries, options=options, query=_INSTANT, **settings)


def heatmap(title: str, description: str, expr: str, **settings: Any) -> Panel:
    """Buckets over time; the expression is an increase by (le), and the y axis has the family's unit."""
    y_unit = settings.pop("y_unit", None) or unit_of(f"histogram_quantile(0.5, {expr})")
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Spectral",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": True,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": y_unit},
    }
    custom = {"scaleDistribution": {"type": "linear"}, "hideFrom": {"legend": False, "tooltip": False, "viz": False}}
    query = {"format": "heatmap"}
    return _panel(
        "heatmap", title, description, {"{{le}}": expr}, options=options, custom=custom, query=query, **settings
    )


def state_timeline(title: str, description: str, queries: str | Mapping[str, str], **settings: Any) -> Panel:
    """States over time; `states` maps values to a text and a colour."""
    states: Mapping[int, tuple[str, str]] = settings.pop("states")
    options = {
        "showValue": "never",
        "rowHeight": 0.9,
        "mergeValues": True,
        "alignValue": "left",
        "legend": _legend([]),
        "tooltip": {"mode": "single", "sort": "none"},
    }
    mapping = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(states.items())
    }
    defaults = {"mappings": [{"type": "value", "options": mapping}], "color": {"mode": "fixed"}}
    return _panel(
        "state-timeline",
        title,
        description,
        queries,
        options=options,
        custom={"lineWidth": 0, "fillOpacity": 70},
        defaults=defaults,
        **{"unit": "none", **settings},
    )


def table(title: str, description: str, queries: Mapping[str, str], **settings: Any) -> Panel:
    """One row a label set, one column a query; `limits` maps a column to its warn and bad thresholds."""
    limits: Mapping[str, tuple[float, float]] = settings.pop("limits", {})
    letters = {f"Value #{chr(ord('A') + index)}": column for index, column in enumerate(queries)}
    # With a single query, merging leaves the plain name.
    names = letters if len(letters) > 1 else {"Value": next(iter(queries))}
    overrides = tuple(_column(column, unit_of(expr), limits.get(column)) for column, expr in queries.items())
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True, "footer": _FOOTER}
    transformations = (
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names}},
    )
    return _panel(
        "table",
        title,
        description,
        queries,
        options=options,
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        overrides=overrides,
        transformations=transformations,
        query={**_INSTANT, "format": "table"},
        **{"unit": "none", **settings},
    )


def render(dashboard: Dashboard, everything: Sequence[Dashboard], *, console: str, note: str) -> Json:
    """The dashboard as Grafana's JSON; links to panels of `everything` are resolved."""
    panels: list[Any] = []
    top = 0
    number = 0
    for row in dashboard.rows:
        number += 1
        panels.append(_envelope(core.RowPanel(title=row.title, id=number), {"x": 0, "y": top, "w": _COLUMNS, "h": 1}))
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top, height = 0, top + height, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_render_panel(panel, number, place, dashboard, everything))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    base = core.Dashboard(
        title=dashboard.title,
        uid=dashboard_uid(dashboard.key),
        description=f"{dashboard.description} {note}",
        tags=[TAG],
        timezone="browser",
        time=core.Time(dashboard.since, "now"),
        refresh="30s",
        panels=[],
        editable=True,
    ).to_json_data()
    kept = ("title", "uid", "description", "tags", "timezone", "refresh", "editable")
    return {name: base[name] for name in kept} | {
        "time": {"from": dashboard.since, "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m", "15m"]},
        "schemaVersion": SCHEMA_VERSION,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "version": 1,
        "panels": panels,
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables), _console(console)]},
        "annotations": {"list": _annotations()},
        "links": _links(),
    }


def panel_id(dashboard: Dashboard, title: str) -> int | None:
    """The number of a panel within its dashboard; rows count, too."""
    number = 0
    for row in dashboard.rows:
        number += 1
        for panel in row.panels:
            number += 1
            if panel.title == title:
                return number
    return None


_INSTANT: Mapping[str, Any] = MappingProxyType({"instant": True, "range": False})
_FOOTER: Mapping[str, Any] = MappingProxyType({"show": False, "reducer": ["sum"], "countRows": False, "fields": []})
_CLASSES: Mapping[str, Any] = MappingProxyType(
    {
        "timeseries": core.TimeSeries,
        "stat": core.Stat,
        "bargauge": core.BarGauge,
        "heatmap": core.Heatmap,
        "state-timeline": core.StateTimeline,
        "table": core.Table,
    }
)


def _panel(kind: str, title: str, description: str, queries: str | Mapping[str, str], **settings: Any) -> Panel:
    legend = settings.pop("legend", "")
    named = {legend: queries} if isinstance(queries, str) else dict(queries)
    unit = settings.pop("unit", None) or unit_of(next(iter(named.values())))
    if unit == "percentunit":
        settings["defaults"] = {"min": 0, **settings.get("defaults", {})}
    return Panel(kind=kind, title=title, description=description, queries=named, unit=unit, **settings)


def _render_panel(
    panel: Panel, number: int, place: Json, dashboard: Dashboard, everything: Sequence[Dashboard]
) -> Json:
    made = _CLASSES[panel.kind](title=panel.title, id=number, description=panel.description, dataSource=None)
    field_config = {
        "defaults": {
            "unit": panel.unit,
            "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
            "mappings": [],
            "thresholds": _thresholds(panel.warn, panel.bad),
            "custom": panel.custom,
        }
        | panel.defaults,
        "overrides": list(panel.overrides),
    }
    inside = {
        "datasource": dict(DATASOURCE),
        "fieldConfig": field_config,
        "options": panel.options,
        "targets": [_target(panel, *item) for item in enumerate(panel.queries.items())],
        "transformations": list(panel.transformations),
        "links": [_next(panel, dashboard, everything)] if panel.next else [],
    }
    if panel.repeat:
        inside |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": _COLUMNS // panel.width}
    return _envelope(made, place) | inside


def _envelope(made: Any, place: Json) -> Json:
    """Of what grafanalib writes, what schemaVersion 41 still knows of a panel."""
    data = made.to_json_data()
    kept: Json = {name: data[name] for name in ("id", "type", "title", "description") if data[name] is not None}
    return kept | ({"collapsed": False, "panels": []} if data["type"] == "row" else {}) | {"gridPos": place}


def _target(panel: Panel, index: int, query: tuple[str, str]) -> Json:
    legend, expr = query
    return {
        "refId": chr(ord("A") + index),
        "expr": " ".join(expr.split()),
        "legendFormat": legend or "__auto",
        "datasource": dict(DATASOURCE),
        "editorMode": "code",
        "format": "time_series",
        "range": True,
        "instant": False,
        "exemplar": panel.kind in ("timeseries", "heatmap") and "_bucket" in expr,
    } | dict(panel.query)


def _next(panel: Panel, dashboard: Dashboard, everything: Sequence[Dashboard]) -> Json:
    there, _, title = panel.next.rpartition(" / ")
    for candidate in [dashboard] if not there else everything:
        number = panel_id(candidate, title)
        if number is not None and there in ("", candidate.title):
            path = dashboard_path(candidate.key, panel=number)
            return _link(f"Next: {panel.next}", f"{path}&${{__url_time_range}}&${{__all_variables}}")
    raise UnknownPanelError(f"{dashboard.title} / {panel.title}: next is {panel.next!r}, which no dashboard has")


def _thresholds(warn: float | None, bad: float | None) -> Json:
    steps: list[Json] = [{"color": GREEN, "value": None}]
    rising = warn is None or bad is None or warn <= bad
    if not rising:  # low is bad
        return _steps([(RED, None), (YELLOW, bad), (GREEN, warn)])
    steps += [{"color": color, "value": value} for color, value in ((YELLOW, warn), (RED, bad)) if value is not None]
    return {"mode": "absolute", "steps": steps}


def _steps(steps: Sequence[tuple[str, float | None]]) -> Json:
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}


def _column(column: str, unit: str, limits: tuple[float, float] | None) -> Json:
    properties: list[Json] = [{"id": "unit", "value": unit}]
    if limits is not None:
        properties += [
            {"id": "thresholds", "value": _thresholds(*limits)},
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}},
        ]
    return {"matcher": {"id": "byName", "options": column}, "properties": properties}


def _band(low: str, high: str) -> tuple[Json, Json]:
    """Fills between the series of two legends, by their regular expressions."""

    def override(pattern: str, *properties: Json) -> Json:
        return {
            "matcher": {"id": "byRegexp", "options": pattern},
            "properties": [{"id": "custom.lineWidth", "value": 0}, *properties],
        }

    return override(low), override(high, {"id": "custom.fillOpacity", "value": 12})


def _legend(calcs: list[str]) -> Json:
    mode = "table" if calcs else "list"
    return {"displayMode": mode, "placement": "bottom", "showLegend": True, "calcs": calcs}


def _reduce() -> Json:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}


def _link(title: str, url: str) -> Json:
    return {
        "title": title,
        "type": "link",
        "url": url,
        "icon": "external link",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": False,
        "keepTime": False,
    }


def _links() -> list[Json]:
    others = _link("Tidegauge", "") | {
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
    del others["url"]
    requests = _link("Requests of this time", "${console}" + requests_path("${__to:date:iso}"))
    return [others, requests | {"targetBlank": True}]


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "regex": "",
        "options": [],
        "skipUrlSync": False,
    }


def _variable(variable: Variable) -> Json:
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.name.replace("_", " "),
        "datasource": dict(DATASOURCE),
        "query": {"query": variable.expr, "refId": variable.name},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": _REGEX_ALL,
        "regex": "",
        "options": [],
        "skipUrlSync": False,
    }


def _console(address: str) -> Json:
    return {"type": "constant", "name": "console", "query": address, "hide": 2, "skipUrlSync": True}


# Expressions of annotations, for the checks.
ANNOTATIONS: Mapping[str, str] = MappingProxyType(
    {
        "Alerts": 'ALERTS{alertstate="firing"}',
        "Drift": "max by (signal, slice) (tidegauge_drift_active) == 1",
    }
)
_ANNOTATION_TEXTS = {
    "Alerts": ("{{alertname}}", "{{severity}} {{model}} {{target}} {{gpu}}", RED),
    "Drift": ("{{signal}}", "{{slice}}", "purple"),
}


def _annotations() -> list[Json]:
    built_in = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    made = [
        {
            "name": name,
            "datasource": dict(DATASOURCE),
            "enable": True,
            "hide": False,
            "expr": expr,
            "titleFormat": _ANNOTATION_TEXTS[name][0],
            "textFormat": _ANNOTATION_TEXTS[name][1],
            "iconColor": _ANNOTATION_TEXTS[name][2],
            "step": "60s",
        }
        for name, expr in ANNOTATIONS.items()
    ]
    return [built_in, *made]
