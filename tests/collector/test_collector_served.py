"""What comes out is what went in: recorded engines through the whole path, read back by another parser."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from catalog.engine import engines
from catalog.family import families
from catalog.instruments import Instruments
from collector.engine_mapping import EngineMapper
from collector.engine_state import EngineStates
from collector.exposition.history import ExpositionHistory
from collector.exposition.parser import ExpositionParser
from collector.ingest import ScrapeIngest
from collector.served import Served
from collector.settings import ScrapeSettings
from collector.targets import Target, checked

DATA = Path(__file__).parents[1] / "data" / "engines"
VLLM = sorted((DATA / "vllm-0.32.0").glob("*.gz"))
LLAMACPP = sorted((DATA / "llamacpp-b11434").glob("*.prom"))
OPENMETRICS = "application/openmetrics-text"
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Bench:
    """The whole path of a scrape, without HTTP."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.registry = CollectorRegistry()
        self.served = Served(self.clock, 15.0, self.registry)
        self.metrics = Instruments(self.registry)
        self.ingest = ScrapeIngest(ScrapeSettings(), self.served, EngineStates(), self.metrics)

    def engine_values(self, accept: str | None = None) -> Values:
        """Every engine sample on /metrics."""
        body, kind = self.served.render(accept)
        parse = openmetrics_families if kind.startswith(OPENMETRICS) else text_families
        return {
            (one.name, labels_of(one.labels)): one.value
            for family in parse(body.decode())
            for one in family.samples
            if one.name.startswith(("llm_engine_", "gen_ai_server_"))
        }


def labels_of(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((key, str(float(value)) if key == "le" else value) for key, value in labels.items())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def source_values(text: str, target: str) -> Values:
    """What /metrics has to say of a vLLM's scrape, by the mapping file and prometheus_client's parser alone."""
    engine = engines()["vllm"]
    rules = {rule.native: rule for rule in engine.rules}
    expected: Values = {}
    for native_family in text_families(text):
        for one in native_family.samples:
            native, suffix = one.name, ""
            if native_family.type == "histogram" and not one.name.endswith("_created"):
                native, _, suffix = one.name.rpartition("_")
                suffix = "_" + suffix
            rule = rules.get(native)
            if rule is None:
                continue
            family = families()[rule.family]
            renamed = {**engine.labels, **rule.labels, "le": "le"}
            there = {*family.labels, *family.optional_labels, "le"}
            labels = {renamed[key]: value for key, value in one.labels.items() if renamed.get(key) in there}
            labels = {"model": "tiny-llama", **labels, **rule.set, "target": target, "engine": "vllm"}
            expected[family.name + suffix, labels_of(labels)] = one.value
    return expected


@pytest.mark.parametrize(("accept", "step"), [(None, 1), (OPENMETRICS, 8)], ids=["text", "openmetrics"])
def test_every_mapped_value_of_89_scrapes_of_vllm_is_served_exactly(
    bench: Bench, accept: str | None, step: int
) -> None:
    target = checked("http://gpu-7:8000/metrics")
    for path in VLLM[::step]:
        text = read(path)
        assert bench.ingest.ingest(target, text, bench.clock.now()).ok
        assert bench.engine_values(accept) == source_values(text, target.name), path.name
    names = {name for name, _ in bench.engine_values(accept)}
    mapped = {rule.family for rule in engines()["vllm"].rules if not rule.until}
    absent = {family for family in mapped if not any(name.startswith(family) for name in names)}
    assert {family for family in absent if "spec_decode" not in family and "corrupted" not in family} == set()


LLAMACPP_NAMES = {
    "llm_engine_requests_running": ["requests_processing"],
    "llm_engine_requests_waiting": ["requests_deferred"],
    "llm_engine_prompt_tokens_total": ["prompt_tokens_total", "prompt_tokens_cached_total"],
    "llm_engine_generation_tokens_total": ["tokens_predicted_total"],
    "llm_engine_prefix_cache_queries_total": ["prompt_tokens_total", "prompt_tokens_cached_total"],
    "llm_engine_prefix_cache_hits_total": ["prompt_tokens_cached_total"],
    "llm_engine_prefill_seconds_total": ["prompt_seconds_total"],
    "llm_engine_decode_seconds_total": ["tokens_predicted_seconds_total"],
    "llm_engine_iterations_total": ["n_decode_total"],
    "llm_engine_sequence_length_max_tokens": ["n_tokens_max"],
    "llm_engine_spec_decode_drafts_total": ["spec_decode_num_drafts_total"],
    "llm_engine_spec_decode_draft_tokens_total": ["spec_decode_num_draft_tokens_total"],
    "llm_engine_spec_decode_accepted_tokens_total": ["spec_decode_num_accepted_tokens_total"],
}


@pytest.mark.parametrize("path", LLAMACPP, ids=lambda path: path.stem)
def test_every_mapped_value_of_llamacpp_is_served_exactly(bench: Bench, path: Path) -> None:
    text = read(path)
    native = {words[0]: float(words[1]) for line in text.splitlines() if (words := line.split()) and words[0] != "#"}
    assert bench.ingest.ingest(checked("http://l:1", {"model": "tiny"}), text, bench.clock.now()).ok
    labels = labels_of({"target": "l:1", "engine": "llamacpp", "model": "tiny"})
    assert bench.engine_values() == {
        (name, labels): sum(native[f"llamacpp:{part}"] for part in parts) for name, parts in LLAMACPP_NAMES.items()
    }


def test_a_model_that_nobody_names_is_unknown(bench: Bench) -> None:
    bench.ingest.ingest(checked("http://l:1"), read(LLAMACPP[0]), bench.clock.now())
    assert {dict(labels)["model"] for _, labels in bench.engine_values()} == {"unknown"}


def test_older_vllm_is_served_under_the_same_names(bench: Bench) -> None:
    text = (
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\nvllm:gpu_prefix_cache_hits_total{model_name="m"} 7\n'
        "# TYPE vllm:time_per_output_token_seconds histogram\n"
        'vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 2\n'
        'vllm:time_per_output_token_seconds_sum{model_name="m"} 1\n'
        'vllm:time_per_output_token_seconds_count{model_name="m"} 2\n'
    )
    bench.ingest.ingest(checked("http://old:1"), text, bench.clock.now())
    assert {name: value for (name, _), value in bench.engine_values().items()} == {
        "llm_engine_kv_cache_usage_ratio": 0.5,
        "llm_engine_prefix_cache_hits_total": 7.0,
        "llm_engine_inter_token_latency_seconds_bucket": 2.0,
        "llm_engine_inter_token_latency_seconds_sum": 1.0,
        "llm_engine_inter_token_latency_seconds_count": 2.0,
    }


@pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["text", "openmetrics"])
def test_each_family_has_one_header_over_all_targets(bench: Bench, accept: str | None) -> None:
    for name in ("a", "b", "c"):
        bench.ingest.ingest(checked(f"http://{name}:1"), read(VLLM[40]), bench.clock.now())
    lines = bench.served.render(accept)[0].decode().splitlines()
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len({line.split()[2] for line in types})
    assert len({dict(labels)["target"] for _, labels in bench.engine_values(accept)}) == 3


def test_a_target_gone_stale_is_served_no_more_and_says_down(bench: Bench) -> None:
    target = checked("http://gpu-7:8000")
    bench.ingest.ingest(target, read(VLLM[40]), bench.clock.now())
    bench.ingest.failed(target, "timeout", "targets: gpu-7:8000 did not answer within 4 s", bench.clock.now())
    assert bench.engine_values()
    bench.clock.time += 15.1
    assert bench.engine_values() == {}
    assert b'tidegauge_target_up{engine="vllm",target="gpu-7:8000"} 0.0' in bench.served.render()[0]


def test_unknown_exposition_is_up_without_families_and_says_why(bench: Bench) -> None:
    result = bench.ingest.ingest(checked("http://node:9100"), "node_load1 0.5\n", bench.clock.now())
    (status,) = bench.ingest.statuses()
    assert (result.ok, status.up, status.engine, status.mapped_families) == (True, True, "unknown", ())
    assert status.unmapped_reason == (
        "targets: node:9100 serves node_load1, which no known engine does (llama.cpp, vLLM); "
        "the label 'engine' can name one"
    )
    assert b'tidegauge_target_up{engine="unknown",target="node:9100"} 1.0' in bench.served.render()[0]


def test_malformed_text_is_a_failed_scrape_that_keeps_the_last_good_one(bench: Bench) -> None:
    target = checked("http://gpu-7:8000")
    bench.ingest.ingest(target, read(VLLM[40]), bench.clock.now())
    before = bench.engine_values()
    result = bench.ingest.ingest(target, "vllm:num_requests_running{ 3\n", bench.clock.now())
    assert result.error.startswith("targets: gpu-7:8000: malformed exposition: line 1: 'vllm:num_requests_running{ 3'")
    assert bench.engine_values() == before
    body = bench.served.render()[0]
    assert b'tidegauge_scrape_failures_total{reason="malformed",target="gpu-7:8000"} 1.0' in body


def test_a_target_that_leaves_takes_all_its_series_along(bench: Bench) -> None:
    target = checked("http://gpu-7:8000")
    bench.ingest.ingest(target, read(VLLM[40]), bench.clock.now())
    bench.ingest.failed(target, "timeout", "late", bench.clock.now())
    bench.ingest.forget(target)
    assert b"gpu-7" not in bench.served.render()[0]
    assert bench.ingest.statuses() == []


def test_targets_that_serve_the_same_share_all_but_their_values_and_names(bench: Bench) -> None:
    first, second = (
        bench.ingest.ingest(checked(url), read(path), bench.clock.now()).mapped
        for url, path in (("http://a:1", VLLM[40]), ("http://b:1", VLLM[41]))
    )
    assert first is not None
    assert second is not None
    assert first.plan is second.plan
    assert [mapped.plan.series[0].text_of(mapped.target.name).partition(",")[0] for mapped in (first, second)] == [
        'gen_ai_server_time_to_first_token_seconds_bucket{target="a:1"',
        'gen_ai_server_time_to_first_token_seconds_bucket{target="b:1"',
    ]


def test_what_the_configuration_says_of_a_target_is_not_shared(bench: Bench) -> None:
    texts = [read(LLAMACPP[0])] * 2
    for name, text in zip("ab", texts, strict=True):
        bench.ingest.ingest(checked(f"http://{name}:1", {"model": name}), text, bench.clock.now())
    assert {(dict(labels)["target"], dict(labels)["model"]) for _, labels in bench.engine_values()} == {
        ("a:1", "a"),
        ("b:1", "b"),
    }


def test_every_engine_family_has_the_target_as_its_first_label() -> None:
    served = {families()[rule.family] for engine in engines().values() for rule in engine.rules}
    assert {family.labels[0] for family in served} == {"target"}


def test_a_series_that_is_there_twice_counts_once_however_it_is_spelled(bench: Bench) -> None:
    text = (
        'vllm:num_requests_running{model_name="m",engine="0"} 3\n'
        'vllm:num_requests_running{engine="0", model_name="m",} 4\n'
    )
    bench.ingest.ingest(checked("http://a:1"), text, bench.clock.now())
    assert list(bench.engine_values().values()) == [3.0]


def test_exemplars_are_served_again_in_openmetrics_alone(bench: Bench) -> None:
    name = "vllm:time_to_first_token_seconds"
    buckets = "".join(
        f'{name}_bucket{{model_name="m",le="{bound}"}} {count}{exemplar}\n'
        for bound, count, exemplar in (
            ("0.5", 3, ' # {trace_id="ab12",span_id="cd34"} 0.25 1795470000.5'),
            ("1.0", 4, " # {} 0.75"),
            ("+Inf", 5, ""),
        )
    )
    text = (
        f'# TYPE {name} histogram\n{buckets}{name}_count{{model_name="m"}} 5\n{name}_sum{{model_name="m"}} 9\n# EOF\n'
    )
    bench.ingest.ingest(checked("http://engine:8000/metrics"), text, 1_000.0)
    page, _ = bench.served.render(OPENMETRICS)
    found = {
        sample.labels["le"]: sample.exemplar
        for family in openmetrics_families(page.decode())
        for sample in family.samples
        if sample.name == "gen_ai_server_time_to_first_token_seconds_bucket"
    }
    assert found["0.5"].labels == {"trace_id": "ab12", "span_id": "cd34"}
    assert (found["0.5"].value, float(found["0.5"].timestamp)) == (0.25, 1795470000.5)
    assert (found["1.0"].labels, found["1.0"].value, found["1.0"].timestamp) == ({}, 0.75, None)
    assert found["+Inf"] is None
    old, _ = bench.served.render(None)
    assert b"ab12" not in old


def test_ids_in_labels_are_refused_once_the_hour_s_allowance_is_used_up(bench: Bench) -> None:
    bench.ingest = ScrapeIngest(ScrapeSettings(max_series=100), bench.served, EngineStates(), bench.metrics)
    target, reasons = checked("http://a:1"), []
    for round_ in range(5):
        text = "vllm:num_requests_running 1\n" + "".join(f'vllm:x{{id="{round_}-{n}"}} 1\n' for n in range(40))
        reasons.append(bench.ingest.ingest(target, text, bench.clock.now()).reason)
    plain = bench.ingest.ingest(target, "vllm:num_requests_running 1\n", bench.clock.now())
    bench.clock.time += 3600
    again = bench.ingest.ingest(target, text, bench.clock.now())
    assert (reasons, plain.reason, again.reason) == (["", "", "", "too_many_series", "too_many_series"], "", "")


def test_models_that_come_and_go_are_not_kept_for_ever() -> None:
    states = EngineStates()
    parser, mapper = ExpositionParser(), EngineMapper(checked("http://a:1"))
    for round_ in range(30):
        text = "".join(f'vllm:num_preemptions_total{{model_name="{round_}-{n}"}} 1\n' for n in range(100))
        states.rows(mapper.map(parser.parse(text), float(round_)))
    assert states.remembered("a:1") <= 1_200


def rows(bench: Bench, target: Target, *texts: str) -> list[dict[str, object]]:
    found = []
    for text in texts:
        bench.clock.time += 1
        table = bench.ingest.ingest(target, text, bench.clock.now()).rows
        assert table is not None
        found += [{key: value for key, value in row.items() if value is not None} for row in table.to_pylist()]
    return found


def vllm(tokens: float, preempted: float = 0, start: float = 5) -> str:
    return (
        f'vllm:generation_tokens_total{{model_name="m",engine="0"}} {tokens}\n'
        f'vllm:num_preemptions_total{{model_name="m",engine="0"}} {preempted}\nprocess_start_time_seconds {start}\n'
    )


def test_engine_state_keeps_the_recording_s_values_and_leaves_out_what_is_not_said(bench: Bench) -> None:
    target = checked("http://gpu-7:8000", {"instance": "gpu-7", "environment": "prod"})
    (row,) = rows(bench, target, read(VLLM[88]))
    assert {key: value for key, value in row.items() if not key.endswith(("_sum", "_count", "time"))} == {
        "target": "gpu-7",
        "instance": "gpu-7",
        "environment": "prod",
        "engine": "vllm",
        "model": "tiny-llama",
        "rank": "0",
        "requests_running": 0.0,
        "requests_waiting": 0.0,
        "kv_cache_usage_ratio": 0.0,
        "prompt_tokens": 4206083.0,
        "generation_tokens": 387169.0,
        "requests_finished": 8740.0,
        "preemptions": 850.0,
        "prefix_cache_queries": 4206083.0,
        "prefix_cache_hits": 3095168.0,
    }
    assert (row["queue_time_s_count"], row["queue_time_s_sum"]) == (8740.0, 8047.093880648973)
    (little,) = rows(bench, checked("http://l:1"), read(LLAMACPP[4]))
    assert "kv_cache_usage_ratio" not in little
    assert little["requests_waiting"] == 2.0


def test_counters_go_on_over_a_reset(bench: Bench) -> None:
    found = rows(bench, checked("http://a:1"), vllm(100), vllm(130), vllm(20), vllm(25))
    assert [row["generation_tokens"] for row in found] == [100.0, 130.0, 150.0, 155.0]


def test_one_counter_s_fall_resets_those_beside_it(bench: Bench) -> None:
    found = rows(bench, checked("http://a:1"), vllm(100, 3), vllm(20, 5))
    assert [row["preemptions"] for row in found] == [3.0, 8.0]


def test_a_restart_is_seen_even_when_every_counter_has_overtaken_its_old_value(bench: Bench) -> None:
    found = rows(bench, checked("http://a:1"), vllm(100, 3, start=5), vllm(110, 4, start=9), vllm(120, 4, start=9))
    assert [(row["generation_tokens"], row["preemptions"]) for row in found] == [(100, 3), (210, 7), (220, 7)]


def test_each_model_and_rank_has_its_row(bench: Bench) -> None:
    text = "".join(
        f'vllm:num_requests_running{{model_name="{model}",engine="{rank}"}} {rank + 1}\n'
        for model in "mn"
        for rank in (0, 1)
    )
    found = [(row["model"], row["rank"], row["requests_running"]) for row in rows(bench, checked("http://a:1"), text)]
    assert found == [("m", "0", 1.0), ("m", "1", 2.0), ("n", "0", 1.0), ("n", "1", 2.0)]


@pytest.fixture
def history(bench: Bench) -> ExpositionHistory:
    """Two engines over the recording, and a registry with every kind of instrument."""
    counter = Counter("own", "A counter.", ["a"], registry=bench.registry)
    gauge = Gauge("own_gauge", "A gauge.", registry=bench.registry)
    histogram = Histogram("own_seconds", "A histogram.", registry=bench.registry)
    kept = ExpositionHistory()
    for number, path in enumerate(VLLM[::4]):
        at = 1_700_000_000.0 + 300 * number
        bench.clock.time = at
        bench.ingest.ingest(checked("http://a:1"), read(path), at)
        if number % 2:
            bench.ingest.ingest(checked("http://b:1"), read(path), at)
        counter.labels(a='quote " and \n').inc()
        gauge.set(number)
        histogram.observe(number)
        kept.add(at, bench.served.current(), bench.registry)
    return kept


def test_history_of_one_moment_is_valid_openmetrics(bench: Bench) -> None:
    # With several timestamps prometheus_client's parser loses a histogram's samples; promtool, below, does not.
    bench.ingest.ingest(checked("http://a:1"), read(VLLM[40]), bench.clock.now())
    kept = ExpositionHistory()
    kept.add(1_700_000_000.5, bench.served.current(), bench.registry)
    found = {
        (one.name, labels_of(one.labels)): one.value
        for family in openmetrics_families("".join(kept.lines()))
        for one in family.samples
        if one.name.startswith(("llm_", "gen_ai_")) and float(one.timestamp) == 1_700_000_000.5
    }
    assert found == source_values(read(VLLM[40]), "a:1")


def test_history_takes_moments_in_order_only(history: ExpositionHistory) -> None:
    with pytest.raises(ValueError, match=r"1700000000\.000 is not after the tick before"):
        history.add(1_700_000_000.0, [])


def test_promtool_makes_blocks_of_a_history(history: ExpositionHistory, tmp_path: Path) -> None:
    size = history.write(tmp_path / "history.om")
    assert size == (tmp_path / "history.om").stat().st_size
    made = subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history.om", "blocks"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    (tmp_path / "blocks" / "wal").mkdir()  # without it dump says nothing
    dumped = subprocess.run(
        ["promtool", "tsdb", "dump", "blocks"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[int, Values] = {}
    for line in dumped.stdout.splitlines():
        series, value, time = line.rsplit(" ", 2)
        labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', series))
        name = labels.pop("__name__")
        if labels.get("target") == "a:1" and name.startswith(("llm_", "gen_ai_")):
            found.setdefault(int(time), {})[name, labels_of(labels)] = float(value)
    assert found == {
        1_700_000_000_000 + 300_000 * number: source_values(read(path), "a:1") for number, path in enumerate(VLLM[::4])
    }
    assert dumped.stdout.count('__name__="own_seconds_bucket"') == 15 * len(found)


def test_promtool_finds_no_fault_in_what_is_served(bench: Bench) -> None:
    bench.ingest.ingest(checked("http://a:1"), read(VLLM[40]), bench.clock.now())
    checked_ = subprocess.run(
        ["promtool", "check", "metrics"], input=bench.served.render()[0], capture_output=True, timeout=60, check=False
    )
    # Lint has opinions on names; what it must not find is text that it cannot read.
    assert b"error while linting" not in checked_.stderr
