"""Every expression of every dashboard, against the catalog and on a real Prometheus over recorded scrapes."""

import gzip
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from alerts.build import generated_rules
from alerts.local_prometheus import prometheus_over
from alerts.settings import AlertSettings
from catalog.family import Family, Kind, Origin, families, family_of_sample
from catalog.instruments import Instruments
from catalog.promql import check_expression, series_of
from collector.engine_mapping import EngineMapper
from collector.exposition.history import ExpositionHistory
from collector.exposition.parser import ExpositionParser
from collector.targets import checked
from dashboards.all import Query, annotations, dashboards, panels
from dashboards.grafana import Variable
from tests.binaries import get_json

SCRAPES = sorted((Path(__file__).parents[1] / "data" / "engines" / "vllm-0.32.0").glob("*.prom.gz"))
QUERIES = [*panels(), *annotations()]
VARIABLES = [variable for dashboard in dashboards() for variable in dashboard.variables]
START = 1_700_000_000.0
TARGET = "gpu-7:8000"
# Grafana's `All`, and a window that suits scrapes one second apart.
CHOICES = {"__rate_interval": "1m", "__range": "1h", "__interval": "15s"}


def name_of(query: Query) -> str:
    return f"{query.dashboard}-{query.title}".replace(" ", "_")


@pytest.mark.parametrize("query", QUERIES, ids=name_of)
def test_every_expression_asks_for_what_the_catalog_declares(query: Query) -> None:
    assert list(map(str, check_expression(query.expr))) == []


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.expr)
def test_every_variable_takes_a_declared_label_of_a_declared_metric(variable: Variable) -> None:
    assert check_expression(f"count by ({variable.label}) ({variable.metric})") == []


def test_every_variable_in_an_expression_is_one_of_its_dashboard() -> None:
    used = {
        (dashboard.key, name)
        for dashboard in dashboards()
        for panel in dashboard.panels()
        for expr in panel.queries.values()
        for name in re.findall(r"\$(\w+)", expr)
        if name not in CHOICES
    }
    assert used <= {(dashboard.key, variable.name) for dashboard in dashboards() for variable in dashboard.variables}


def test_every_metric_about_tidegauge_itself_has_a_panel_or_an_alert() -> None:
    expressions = [query.expr for query in QUERIES] + [rule.expr for rule in generated_rules(AlertSettings())]
    words = {word for expr in expressions for word in re.findall(r"[a-z_]+", expr)}
    own = [f for f in families().values() if f.name.startswith("tidegauge_") or f.origin is Origin.SELF]
    assert [family.name for family in own if not family.exposed() & words] == []


def test_every_family_about_gpus_and_clients_has_a_panel() -> None:
    shown = {selector.name for query in QUERIES for selector in series_of(query.expr)}
    there = [f for f in families().values() if f.origin in (Origin.GPU, Origin.TRACES, Origin.STORE)]
    assert [family.name for family in there if not family.exposed() & shown] == []


def test_every_heatmap_shows_the_buckets_of_one_histogram() -> None:
    """Grafana takes each series of the answer for a bucket, whatever its other labels are."""
    heatmaps = [panel for dashboard in dashboards() for panel in dashboard.panels() if panel.kind == "heatmap"]
    for panel in heatmaps:
        (expr,) = panel.queries.values()
        (selector,) = series_of(expr)
        of_engine = family_of_sample()[selector.name].origin is Origin.ENGINE
        assert expr.startswith("sum by (le) (")
        assert panel.repeat == ("target" if of_engine else "")


def label_sets(family: Family) -> Iterator[dict[str, str]]:
    """Two series of a family, and one for each label value that a panel asks for by name."""
    yield dict.fromkeys(family.labels, "a")
    if not family.labels:
        return
    yield dict.fromkeys(family.labels, "b")
    for query in QUERIES:
        for selector in series_of(query.expr):
            if family_of_sample().get(selector.name) is family:
                fixed = {m.label: m.value for m in selector.matchers if m.operator == "="}
                yield {**dict.fromkeys(family.labels, "a"), **fixed}


def instruments(registry: CollectorRegistry) -> Iterator[tuple[Family, object]]:
    """Live instruments of all families that are not an engine's; gauges of series `a` are 1 and others 0."""
    made = Instruments(registry)
    spaces = {Kind.COUNTER: made.counters, Kind.GAUGE: made.gauges, Kind.HISTOGRAM: made.histograms}
    for family in families().values():
        if family.origin is not Origin.ENGINE:
            metric = getattr(spaces[family.kind], family.name)
            for labels in {tuple(found.items()): found for found in label_sets(family)}.values():
                yield family, metric.labels(**labels) if labels else metric
                if family.kind is Kind.GAUGE and "b" not in labels.values():
                    (metric.labels(**labels) if labels else metric).set(1)


@pytest.fixture(scope="module")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that holds a minute and a half of a real vLLM, and moving values of everything else."""
    parser, mapper, history = (
        ExpositionParser(),
        EngineMapper(checked(f"http://{TARGET}/metrics")),
        ExpositionHistory(),
    )
    registry = CollectorRegistry()
    moving = list(instruments(registry))
    for second, path in enumerate(SCRAPES):
        scrape = parser.parse(gzip.decompress(path.read_bytes()).decode())
        for family, series in moving:
            if family.kind is Kind.COUNTER:
                series.inc()  # type: ignore[attr-defined]
            elif family.kind is Kind.HISTOGRAM:
                series.observe(0.5)  # type: ignore[attr-defined]
        history.add(START + second, [mapper.map(scrape, START + second)], registry)
    recording = tmp_path_factory.mktemp("dashboards") / "recording.om"
    history.write(recording)
    with prometheus_over(recording, "5m") as url:
        yield url


def asked(url: str, expr: str) -> list[dict[str, object]]:
    """Grafana's range query over the recording."""
    one = expr.replace('="$target"', f'="{TARGET}"')
    filled = re.sub(r"\$(\w+)", lambda match: CHOICES.get(match.group(1), ".*"), one)
    query = {"query": filled, "start": START, "end": START + len(SCRAPES), "step": 5}
    answer = get_json(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}")
    found: list[dict[str, object]] = answer["data"]["result"]
    return found


@pytest.mark.parametrize("query", list(panels()), ids=name_of)
def test_every_panel_shows_data_on_a_real_prometheus(query: Query, prometheus_url: str) -> None:
    values = [float(value) for series in asked(prometheus_url, query.expr) for _, value in series["values"]]  # type: ignore[attr-defined]
    # A rate over nothing is NaN; a panel with nothing else is an empty panel.
    assert [value for value in values if value == value] != []
