"""Every engine mapping says what its families can carry, and the form carries every trap of the inventory."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from catalog.engine import EngineMapping, EngineMappingError, MapRule, Never, Refusal, Spelling, engines, parse_engine
from catalog.family import families
from collector.engine_mapping import EngineMapper
from collector.exposition.parser import ExpositionParser
from collector.targets import checked

RULES = [(engine, rule) for engine in engines().values() for rule in engine.rules]


@pytest.mark.parametrize(
    ("engine", "rule"), RULES, ids=lambda item: item.native if isinstance(item, MapRule) else item.name
)
def test_a_rule_fits_its_family(engine: EngineMapping, rule: MapRule) -> None:
    family = families()[rule.family]
    allowed = {*family.labels, *family.optional_labels}
    given = {"target", "engine", "model", *rule.labels.values(), *rule.set}
    assert given <= allowed
    assert set(family.labels) <= given | set(engine.labels.values())
    assert rule.exposed_type in (rule.native_type, str(family.kind), "histogram")


def test_vantage_is_the_engine_s_for_what_is_measured_in_several_places() -> None:
    rules = [rule for _, rule in RULES if "vantage" in families()[rule.family].labels]
    assert {rule.set.get("vantage") for rule in rules} == {"engine"}


def test_a_histogram_of_gaps_never_feeds_time_per_output_token() -> None:
    feeds = {rule.native: rule.family for rule in engines()["vllm"].rules}
    assert feeds["vllm:time_per_output_token_seconds"] == feeds["vllm:inter_token_latency_seconds"]
    assert feeds["vllm:request_time_per_output_token_seconds"] != feeds["vllm:time_per_output_token_seconds"]


HEAD = 'name = "x"\ntitle = "X"\nsignature = ["x:"]\n[labels]\nmodel_name = "model"\nengine = "rank"\n'


def mapped(mapping: str, exposition: str, monkeypatch: pytest.MonkeyPatch, head: str = HEAD) -> list[str]:
    """What an engine mapped so serves, one `name{labels} value` a line, without the labels target and engine."""
    engine = parse_engine(head + mapping, "x.toml")
    monkeypatch.setattr("collector.engine_mapping.engines", lambda: {"x": engine})
    target = checked("http://a:1", {"engine": "x"} if engine.hint_only else {})
    result = EngineMapper(target).map(ExpositionParser().parse(exposition), 0.0)
    return [
        series.text_of("a:1").replace('target="a:1",engine="x",', "").replace(families_prefix(series.family.name), "")
        + f" {value!r}"
        for series, value in result.samples()
    ]


def families_prefix(name: str) -> str:
    return name.partition("engine_")[0] + "engine_" if name.startswith("llm_engine_") else ""


RUNNING = "llm_engine_requests_running"
TRAPS = tomllib.loads((Path(__file__).parents[1] / "data" / "engines" / "traps.toml").read_text())["trap"]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap["name"])
def test_the_form_carries_the_trap(trap: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert mapped(trap["mapping"], trap["exposition"], monkeypatch) == trap["serves"]


def test_unprefixed_names_are_taken_only_from_a_target_that_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    head = 'name = "x"\ntitle = "X"\nsignature = []\nhint_only = true\n[labels]\n'
    rule = f'[[map]]\nnative = "num_requests_running"\nfamily = "{RUNNING}"\n'
    assert mapped(rule, "num_requests_running 3\n", monkeypatch, head) == ['requests_running{model="unknown"} 3.0']
    unnamed = EngineMapper(checked("http://a:1")).map(ExpositionParser().parse("num_requests_running 3\n"), 0.0)
    assert (unnamed.plan.engine, unnamed.plan.series) == ("unknown", ())


def test_an_installed_package_can_bring_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidegauge.engines]\nx = theirs:MAPPING\n")
    rule = f'[[map]]\nnative = "x:n"\nfamily = "{RUNNING}"\n'
    (tmp_path / "theirs.py").write_text(f"MAPPING = {HEAD + rule!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    engines.cache_clear()
    try:
        assert engines()["x"].rules[0].native == "x:n"
    finally:
        engines.cache_clear()


FAULTS = {
    "family": ('[[map]]\nnative = "x:a"\nfamily = "nothing"\n', "no family 'nothing'"),
    "key": ('[[map]]\nnative = "x:a"\nfamly = "b"\n', "unknown key 'famly'"),
    "label": (f'[[map]]\nnative = "x:a"\nfamily = "{RUNNING}"\nset = {{ pod = "a" }}\n', "has no label 'pod'"),
    "missing label": (
        '[[map]]\nnative = "x:a"\nfamily = "llm_engine_requests_total"\n',
        "needs the label 'finish_reason'",
    ),
    "kind": (
        '[[map]]\nnative = "x:a"\nfamily = "llm_engine_queue_time_seconds"\nnative_type = "gauge"\n',
        "is a histogram and x:a a gauge",
    ),
    "quantiles": (
        '[[map]]\nnative = "x:a"\nfamily = "llm_engine_queue_time_seconds"\nnative_type = "summary"\n',
        "quantiles cannot be aggregated",
    ),
    "number of a histogram": (
        f'[[map]]\nnative = "x:a"\nfamily = "{RUNNING}"\ntake = "sum_count"\n',
        "is a gauge; write",
    ),
    "never": (
        f'[[map]]\nnative = "x:a"\nfamily = "{RUNNING}"\n[[never]]\nnative = "x:a"\nwhy = "reset"\n',
        "both mapped and never to be",
    ),
    "regex": (f'[[map]]\nnative = "x:a"\nfamily = "{RUNNING}"\nwhere = {{ a = "~(" }}\n', "is no regular expression"),
    "zero": (f'[[map]]\nnative = "x:a"\nfamily = "{RUNNING}"\ndivide = 0\n', "must not be 0"),
    "TOML": ("[[map]\n", "x.toml: "),
}


@pytest.mark.parametrize(("mapping", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_wrong_mapping_says_where_and_what(mapping: str, message: str) -> None:
    with pytest.raises(EngineMappingError, match=r"x\.toml: ") as caught:
        parse_engine(HEAD + mapping, "x.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize("cls", [EngineMapping, MapRule, Never, Refusal, Spelling], ids=lambda cls: cls.__name__)
def test_every_key_of_the_form_is_documented(cls: type) -> None:
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    keys = {item.name for item in fields(cls)} - {"rules", "spellings", "refusals"}
    assert {key for key in keys if f"`{key}`" not in text and f"[{key}]" not in text} == set()
