"""Every dashboard and every query in them."""

from collections.abc import Iterator
from typing import NamedTuple

from dashboards import drift, engine, fleet, gpu, itself, quality, requests
from dashboards.grafana import ANNOTATIONS, Dashboard


class Query(NamedTuple):
    """One expression of a panel."""

    dashboard: str
    title: str
    expr: str


def dashboards() -> list[Dashboard]:
    """All dashboards, the overview first."""
    return [module.DASHBOARD for module in (fleet, engine, gpu, requests, quality, drift, itself)]


def panels() -> Iterator[Query]:
    """Every expression of every panel, with where it stands."""
    for dashboard in dashboards():
        for panel in dashboard.panels():
            for expr in panel.queries.values():
                yield Query(dashboard.title, panel.title, expr)


def annotations() -> Iterator[Query]:
    """The expressions of the annotations that all dashboards show."""
    for title, expr in ANNOTATIONS.items():
        yield Query("Annotations", title, expr)
