"""`tidegauge check --live`: which panels and alerts would find no data right now, and why."""

import asyncio
import time
import urllib.request
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
from service import locate
from service.config import Config

GPM_SECONDS = 0.2
SERVICE_SECONDS = 10.0
Exposed = Mapping[str, list[Mapping[str, str]]]


@dataclass(frozen=True)
class Silent:
    """A query that would find nothing: where it stands, and why."""

    kind: str
    place: str
    reasons: tuple[str, ...]


def look(config: Config) -> tuple[list[dict[str, Any]], list[Silent]]:
    """Scrapes every target once and reads the GPUs; gives each target's state and the silent queries.

    What a running service has counted (requests, scores, drift, itself) is there, too; where none runs it is silent.
    """
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
    there = exposed(body.decode())
    for name, labels in _of_running(config).items():
        there.setdefault(name, []).extend(labels)
    return targets, list(_silent(config, there))


def _of_running(config: Config) -> Exposed:
    """What the service that has the data directory open serves; nothing if there is none, or it does not answer."""
    running = locate.find(config.data)
    if running is None:
        return {}
    request = urllib.request.Request(f"{running.url}/metrics", headers={"Authorization": f"Bearer {running.token}"})
    try:
        with urllib.request.urlopen(request, timeout=SERVICE_SECONDS) as answer:
            return exposed(answer.read().decode())
    except OSError:
        return {}


def exposed(text: str) -> dict[str, list[Mapping[str, str]]]:
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
