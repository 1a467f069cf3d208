"""`tidegauge check --live`: which panels and alerts would find no data right now, and why."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pynvml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import alerts.build
import dashboards.all
from catalog.clock import SystemClock
from catalog.instruments import Instruments
from catalog.promql import missing
from collector.engine_state import EngineStates
from collector.gpu.collector import host_node
from collector.gpu.exposition import GpuExposition
from collector.gpu.nvml import NvmlSource
from collector.scrape import Scraper
from collector.served import Served
from service.config import Config

GPM_SECONDS = 0.2
Exposed = Mapping[str, list[Mapping[str, str]]]


@dataclass(frozen=True)
class Silent:
    """A query that would find nothing: where it stands, and why."""

    kind: str
    place: str
    reasons: tuple[str, ...]


def look(config: Config) -> tuple[list[dict[str, Any]], list[Silent]]:
    """Scrapes every target once and reads the GPUs; gives each target's state and the silent queries."""
    registry = CollectorRegistry()
    metrics = Instruments(registry)
    served = Served(SystemClock(), config.scrape.staleness(), registry)
    scraper = Scraper(config.scrape, served, EngineStates(), lambda rows: None, SystemClock(), metrics)
    results = asyncio.run(scraper.once())
    _read_gpus(config, registry)
    body, _ = served.render()
    targets = [
        {"target": result.target.name, "up": result.ok, "engine": result.mapped and result.mapped.plan.engine,
         "problem": result.error or (result.mapped.plan.reason if result.mapped else "")}
        for result in results
    ]  # fmt: skip
    return targets, list(_silent(config, exposed(body.decode())))


def exposed(text: str) -> Exposed:
    """Label sets by sample name."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def _read_gpus(config: Config, registry: CollectorRegistry) -> None:
    source = NvmlSource(pynvml, config.gpu, host_node(config.gpu))
    exposition = GpuExposition()
    registry.register(exposition)
    try:
        source.read(SystemClock().now())
        # The profiling metrics are differences between two looks.
        time.sleep(GPM_SECONDS)
        exposition.show(source.read(SystemClock().now()).readings)
    finally:
        source.close()


def _silent(config: Config, there: Exposed) -> Iterator[Silent]:
    for panel in dashboards.all.panels():
        reasons = missing(panel.expr, there)
        if reasons:
            yield Silent("panel", f"{panel.dashboard} / {panel.title}", tuple(reasons))
    for rule in alerts.build.generated_rules(config.alert_settings()):
        reasons = missing(rule.expr, there)
        if reasons:
            yield Silent("alert", rule.name, tuple(reasons))
