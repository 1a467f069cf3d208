"""The JSON that Grafana gets, against the models of Grafana's own SDK."""

import enum
import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard as Model

from catalog.links import DASHBOARDS, dashboard_uid
from dashboards.all import dashboards
from dashboards.build import rendered
from dashboards.grafana import SCHEMA_VERSION, Dashboard, Panel, Row, UnknownPanelError, render, stat, timeseries
from dashboards.units import UnknownUnitError, unit_of
from service.api.requests import RequestFilters
from service.api.times import instant

DEPLOY = Path(__file__).parents[2] / "deploy" / "grafana"
DOCUMENTS = {name: json.loads(text) for name, text in rendered().items() if name.endswith(".json")}
PANELS = [(dashboard, panel) for dashboard in dashboards() for panel in dashboard.panels()]
IDS = [f"{dashboard.key}-{panel.title}".replace(" ", "_") for dashboard, panel in PANELS]
# Grafana reads these of a Prometheus annotation, and its SDK does not know them.
NOT_IN_THE_SDK = {".annotations.list.step", ".annotations.list.textFormat", ".annotations.list.titleFormat"}

plugins.register_default_plugins()


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where the SDK's reading has not what we wrote; what it adds is its defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for mine, other in zip(ours, theirs, strict=True):
            yield from lost(mine, other, path)
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def enums(hint: Any) -> list[type[enum.Enum]]:
    """The enumerations in a type annotation."""
    if isinstance(hint, type):
        return [hint] if issubclass(hint, enum.Enum) else []
    return [found for argument in typing.get_args(hint) for found in enums(argument)]


def outside_enums(model: Any, path: str = "") -> Iterator[str]:
    """Values that are none of their enumeration's: reading does not check that."""
    if isinstance(model, list):
        for item in model:
            yield from outside_enums(item, path)
    elif hasattr(model, "__dict__") and not isinstance(model, enum.Enum):
        hints = typing.get_type_hints(type(model))
        for name, value in vars(model).items():
            allowed = enums(hints.get(name))
            if (
                allowed
                and isinstance(value, str | int)
                and value not in [item.value for one in allowed for item in one]
            ):
                yield f"{path}.{name}: {value!r}"
            yield from outside_enums(value, f"{path}.{name}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_grafanas_models_lose_nothing_of_a_dashboard(name: str) -> None:
    model = Model.from_json(DOCUMENTS[name])
    assert set(lost(DOCUMENTS[name], json.loads(JSONEncoder().encode(model)))) <= NOT_IN_THE_SDK


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_choice_is_one_that_grafana_has(name: str) -> None:
    assert list(outside_enums(Model.from_json(DOCUMENTS[name]))) == []


def test_a_wrong_choice_is_found_by_this_test() -> None:
    document = json.loads(rendered()["fleet.json"])
    document["panels"][1]["options"]["graphMode"] = "areas"
    assert list(outside_enums(Model.from_json(document))) == [".panels.options.graph_mode: 'areas'"]


def test_an_outdated_shape_is_found_by_this_test() -> None:
    document = json.loads(rendered()["fleet.json"])
    document["panels"][1]["maxDataPoint"] = 100
    document["panels"][1]["options"]["thresholds"] = "0,1"
    found = lost(document, json.loads(JSONEncoder().encode(Model.from_json(document))))
    assert set(found) - NOT_IN_THE_SDK == {".panels.maxDataPoint", ".panels.options.thresholds"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_of_grafanalibs_old_schema_is_left(name: str) -> None:
    document = DOCUMENTS[name]
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert (document["schemaVersion"], document["graphTooltip"], document.get("rows")) == (SCHEMA_VERSION, 1, None)
    assert [panel["title"] for panel in panels if "maxDataPoints" in panel or "thresholds" in panel] == []


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=IDS)
def test_every_panel_says_what_to_think_in_a_unit_that_grafana_knows(dashboard: Dashboard, panel: Panel) -> None:
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert len(panel.description.split()) >= 4, "a description says what to think"
    assert panel.unit.startswith("si:") or panel.unit in known


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=IDS)
def test_every_panel_says_where_to_look_next(dashboard: Dashboard, panel: Panel) -> None:
    # That the panel exists is the renderer's to check, which raises.
    assert panel.next not in ("", panel.title)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_panels_of_the_title_that_they_name(name: str) -> None:
    titles = {
        (document["uid"], str(panel["id"])): panel["title"]
        for document in DOCUMENTS.values()
        for panel in document["panels"]
    }
    for panel in DOCUMENTS[name]["panels"]:
        for link in panel.get("links", []):
            path, _, query = link["url"].partition("?viewPanel=")
            found = titles[path.removeprefix("/d/"), query.partition("&")[0]]
            assert link["title"].rpartition(" / ")[2].removeprefix("Next: ") == found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_panels_have_their_own_number_and_place(name: str) -> None:
    panels = DOCUMENTS[name]["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_panel_titles_are_unique_within_a_dashboard() -> None:
    assert len(set(IDS)) == len(IDS)


def test_every_dashboard_of_the_links_is_built_under_its_uid() -> None:
    assert {document["uid"] for document in DOCUMENTS.values()} == {dashboard_uid(key) for key in DASHBOARDS}


def test_an_unknown_dashboard_key_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no dashboard 'flet', only fleet, engine, gpu"):
        dashboard_uid("flet")


def test_a_next_that_leads_nowhere_is_an_error() -> None:
    panel = stat("A", "What to think of it.", "up", next="Engine / Nothing")
    lonely = Dashboard(key="fleet", description="", variables=[], rows=[Row("R", [panel])])
    with pytest.raises(UnknownPanelError, match=r"Fleet / A: next is 'Engine / Nothing', which no dashboard has"):
        render(lonely, [lonely], console="", note="")


@pytest.mark.parametrize(
    ("warn", "bad", "expected"),
    [
        pytest.param(1, 5, [("green", None), ("yellow", 1), ("red", 5)], id="high_is_bad"),
        pytest.param(100, 10, [("red", None), ("yellow", 10), ("green", 100)], id="low_is_bad"),
        pytest.param(None, 5, [("green", None), ("red", 5)], id="bad_alone"),
        pytest.param(None, None, [("green", None)], id="none"),
    ],
)
def test_thresholds_colour_the_bad_side(warn: float | None, bad: float | None, expected: list[Any]) -> None:
    panel = timeseries("A", "What to think of it.", "up", warn=warn, bad=bad)
    board = Dashboard(key="fleet", description="", variables=[], rows=[Row("R", [panel])])
    steps = render(board, [board], console="", note="")["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == expected


UNITS = {
    "gauge": ("hw_power_watts", "watt"),
    "ratio": ("1 - max(hw_gpu_utilization_ratio)", "percentunit"),
    "rate_of_seconds_is_a_share": ("rate(hw_gpu_clock_event_seconds_total[5m])", "percentunit"),
    "rate_of_joules_is_power": ("sum(rate(hw_energy_joules_total[5m]))", "watt"),
    "rate_of_bytes": ("rate(hw_gpu_io_bytes_total[5m])", "binBps"),
    "rate_of_things": ("rate(tidegauge_loop_errors_total[5m])", "cps"),
    "increase_keeps": ("increase(hw_energy_joules_total[1h])", "joule"),
    "quantile": ("histogram_quantile(0.9, rate(llm_engine_queue_time_seconds_bucket[5m]))", "s"),
    "bucket_counts": ("increase(llm_engine_queue_time_seconds_bucket[5m])", "short"),
    "mean": ("rate(llm_engine_queue_time_seconds_sum[5m]) / rate(llm_engine_queue_time_seconds_count[5m])", "s"),
    "share_of_like": ("hw_gpu_memory_usage_bytes / hw_gpu_memory_limit_bytes", "percentunit"),
    "energy_per_token": (
        "rate(hw_energy_joules_total[5m]) / on () rate(llm_engine_generation_tokens_total[5m])",
        "si:J/tok",
    ),
    "age": ("time() - tidegauge_scrape_last_success_timestamp_seconds", "s"),
    "count_of_anything": ("count(hw_power_watts)", "short"),
    "scaled": ("2 * hw_temperature_celsius", "celsius"),
}


@pytest.mark.parametrize(("expr", "expected"), UNITS.values(), ids=UNITS.keys())
def test_units_follow_from_the_catalogs(expr: str, expected: str) -> None:
    assert unit_of(expr) == expected


def test_a_unit_without_a_name_must_be_said() -> None:
    with pytest.raises(UnknownUnitError, match=r"no unit of Grafana for \{'watts': 1, 'hertz': 1\}"):
        unit_of("hw_power_watts * on (gpu) hw_gpu_clock_hertz")


def test_no_number_is_infinite_or_not_a_number() -> None:
    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from numbers(item)
        elif isinstance(value, float):
            yield value

    assert all(math.isfinite(number) for number in numbers(list(DOCUMENTS.values())))


def test_provisioning_loads_what_is_generated() -> None:
    provider = yaml.safe_load((DEPLOY / "provisioning/dashboards/tidegauge.yaml").read_text())["providers"][0]
    source = yaml.safe_load((DEPLOY / "provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert (provider["type"], provider["folderUid"], source["type"]) == ("file", "tidegauge", "prometheus")


def test_the_page_of_dashboards_names_every_one_of_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    assert {key.strip(" `"): title.strip() for key, title in rows} == dict(DASHBOARDS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_link_to_the_console_is_a_question_that_it_understands(name: str) -> None:
    url = DOCUMENTS[name]["links"][1]["url"].replace("${__to:date:iso}", "2026-01-02T03:04:05.000Z")
    path, _, query = url.partition("?")
    asked = RequestFilters.model_validate(dict(parse_qsl(query)))
    assert (path, asked.sort) == ("${console}/requests", "duration")
    assert instant(asked.at or "", 0.0) == 1767323045.0
