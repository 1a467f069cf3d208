"""The generated rules over a recording, evaluated by a real Prometheus."""

import lzma
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from alerts import backtest
from alerts.backtest import AlertSpan, BacktestReport, BacktestUnavailableError
from alerts.build import GeneratedRule, generated_rules
from alerts.settings import AlertSettings
from tests.binaries import prometheus

RECORDED = Path(__file__).parents[1] / "data/alerts"
OVERLOAD = 720.0
HOUR = 3600.0


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> BacktestReport:
    recording = _unpacked("production", tmp_path_factory.mktemp("recording"))
    return backtest.run(recording, generated_rules(AlertSettings()))


def _unpacked(name: str, folder: Path) -> Path:
    path = folder / f"{name}.om"
    path.write_bytes(lzma.decompress((RECORDED / f"{name}.openmetrics.xz").read_bytes()))
    return path


def test_recorded_overload_pages_for_queue_and_first_token_and_quiet_traffic_does_not(report: BacktestReport) -> None:
    pages = {
        span.name: round(span.started - report.start - OVERLOAD) for span in report.spans if span.severity == "page"
    }
    assert pages == {"LLMTimeToFirstTokenHigh": 70, "LLMEngineQueueLong": 95}


def test_short_overload_of_a_fast_engine_pages_once_time_is_scaled(tmp_path: Path) -> None:
    rules = generated_rules(AlertSettings(time_scale=0.1))
    found = backtest.run(_unpacked("tiny", tmp_path), rules, interval_seconds=1.0)
    pages = {
        span.name: (round(span.started - found.start), span.ended) for span in found.spans if span.severity == "page"
    }
    # The overload lasts from second 41 to 61; the busy phase before and the long prompts after it wake nobody.
    assert {name: started for name, (started, _) in pages.items()} == {
        "LLMEngineQueueLong": 45,
        "LLMTimeToFirstTokenHigh": 51,
    }
    assert all(ended is not None and ended - found.start < 75 for _, ended in pages.values())


def test_queue_page_ends_when_the_queue_has_drained(tmp_path: Path) -> None:
    # The recording ends before the minute for which a page fires on.
    rules = [replace(rule, keep_seconds=0.0) for rule in generated_rules(AlertSettings())]
    found = backtest.run(_unpacked("production", tmp_path), rules)
    (page,) = [span for span in found.spans if span.name == "LLMEngineQueueLong"]
    assert page.ended is not None
    assert page.ended - page.started == pytest.approx(105, abs=15)


def test_page_of_a_backtest_carries_its_texts_and_links(report: BacktestReport) -> None:
    (page,) = [span for span in report.spans if span.name == "LLMEngineQueueLong"]
    assert page.annotations["summary"] == (
        f"smollm2-135m-instruct on engine is overloaded: a request that arrives now waits about {page.value:.4g}s "
        "before it starts"
    )
    assert page.annotations["requests_url"] == (
        f"http://127.0.0.1:8433/requests?model=smollm2-135m-instruct&target=engine&at={page.started:.0f}"
        "&sort=time_to_first_token"
    )


def test_backtest_leaves_no_process_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    recording = _recording(tmp_path, "tidegauge_target_up 0 1000\n")
    backtest.run(recording, [_rule("tidegauge_target_up == 0")])
    assert list((tmp_path / "temporary").iterdir()) == []
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(path)]
    assert running == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "has no samples", id="empty"),
        pytest.param("x 1 10\nx 2 {\n", "no timestamp at the end of 'x 2 {", id="no_timestamp"),
        pytest.param("x{ 1 10\n", r"promtool cannot import recording\.om: .*", id="malformed"),
    ],
)
def test_recording_that_cannot_be_read_is_an_error_with_the_reason(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BacktestUnavailableError, match=message):
        backtest.run(_recording(tmp_path, text), [])


def test_without_prometheus_the_reason_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BacktestUnavailableError, match="promtool is not on the PATH; on Debian"):
        backtest.run(_recording(tmp_path, "x 1 10\n"), [])


def test_address_that_is_no_prometheus_is_an_error_with_the_reason() -> None:
    with pytest.raises(BacktestUnavailableError, match=r"Prometheus at http://127\.0\.0\.1:1 does not answer"):
        backtest.run_against("http://127.0.0.1:1", [_rule("x")], 0, 60)


def test_running_prometheus_is_asked_in_bounded_queries(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {}\n")
    with prometheus(config, tmp_path) as url:
        found = backtest.run_against(url, [_rule("vector(1)", hold=30.0)], 0.0, 30 * 24 * HOUR, 60.0)
    assert [(span.pending_since, span.started, span.ended) for span in found.spans] == [(0.0, 60.0, None)]


@pytest.mark.parametrize(
    ("values", "hold", "expected"),
    [
        pytest.param("1111", 20.0, [(0, 20, None)], id="fires_once_it_has_held"),
        pytest.param("1111", 0.0, [(0, 0, None)], id="fires_at_once_without_for"),
        pytest.param("1.111", 20.0, [(20, 40, None)], id="a_gap_while_pending_begins_anew"),
        pytest.param("111.1", 20.0, [(0, 20, 30)], id="a_gap_while_firing_resolves"),
        pytest.param("11..", 20.0, [], id="shorter_than_for_is_silent"),
    ],
)
def test_for_is_applied_as_prometheus_does(values: str, hold: float, expected: list[tuple[int, int, int]]) -> None:
    labels = frozenset({("target", "a")})
    steps: list[tuple[float, Mapping[backtest.Labels, float]]] = [
        (10.0 * index, {labels: 1.0} if value == "1" else {}) for index, value in enumerate(values)
    ]
    found = backtest.spans_of(_rule("x", hold=hold), iter(steps))
    assert [(span.pending_since, span.started, span.ended) for span in found] == expected


def test_rule_that_pages_often_is_noisy() -> None:
    spans = tuple(AlertSpan("A", "page", {}, {}, t, t, t + 60, 1.0) for t in (0.0, 300.0, 600.0, 900.0))
    quiet = (AlertSpan("B", "page", {}, {}, 0.0, 0.0, None, 1.0),)
    assert BacktestReport(0.0, HOUR, 60.0, 2, spans + quiet).noisy == ("A",)


def _rule(expr: str, hold: float = 0.0) -> GeneratedRule:
    return GeneratedRule("Sample", expr, hold, {"severity": "page"}, {})


def _recording(folder: Path, samples: str) -> Path:
    path = folder / "recording.om"
    path.write_text(samples + "# EOF\n")
    return path


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        pytest.param(2, [(10.0, 110.0)], id="a short gap is bridged"),
        pytest.param(4, [(10.0, 60.0), (90.0, 130.0)], id="a long gap ends it"),
    ],
)
def test_a_page_fires_on_for_a_while_as_in_prometheus(gap: int, expected: list[tuple[float, float]]) -> None:
    labels = frozenset({("model", "m")})
    there = [True] * 4 + [False] * gap + [True] * 3 + [False] * 10
    steps = [(10.0 * number, {labels: 1.0} if value else {}) for number, value in enumerate(there)]
    rule = replace(_rule("x", hold=10.0), keep_seconds=20.0)
    found = [(span.started, span.ended) for span in backtest.spans_of(rule, iter(steps))]
    assert found == expected
