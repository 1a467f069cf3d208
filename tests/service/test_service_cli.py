"""The command line: exit codes, JSON for machines, and messages in place of tracebacks."""

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alerts.local_prometheus import free_port
from service.cli import app
from tests.binaries import local_server

SCRAPE = Path(__file__).parents[1] / "data" / "engines" / "vllm-0.32.0" / "040.prom.gz"
ANSWERS = (
    {"id": "a", "input": "Hello", "output": "I cannot help with that."},
    {"id": "b", "input": "As JSON", "output": '{"a": 1}', "response_format": "json_object"},
    {"id": "c", "input": "As JSON", "output": '{"a": 1', "response_format": "json_object"},
)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def answered(*arguments: str, code: int = 0) -> Any:
    """The JSON that a command prints."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def tokens(path: Path, mean: float) -> Path:
    draw = random.Random(mean)
    path.write_text("output_tokens\n" + "".join(f"{int(draw.gauss(mean, 20))}\n" for _ in range(500)))
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_init_writes_a_file_that_check_accepts_and_never_overwrites_it(tmp_path: Path) -> None:
    assert run("init").exit_code == 0
    assert (run("check").exit_code, answered("check")) == (0, {"valid": True})
    (tmp_path / "tidegauge.yaml").write_text("# mine")
    again = run("init")
    assert (again.exit_code, again.stderr) == (2, "tidegauge.yaml exists; --force overwrites it\n")
    assert (tmp_path / "tidegauge.yaml").read_text() == "# mine"
    assert run("init", "--force").exit_code == 0


@pytest.mark.parametrize("command", ["check", "serve", "evals list", "alerts build --out x"], ids=lambda words: words)
def test_a_bad_configuration_is_exit_2_and_the_faults(tmp_path: Path, command: str) -> None:
    (tmp_path / "tidegauge.yaml").write_text("listn: 1")
    result = run(*command.split())
    assert result.exit_code == 2
    assert result.stderr == "tidegauge.yaml: 1 problem\n  listn: there is no such key; did you mean 'listen'?\n"


USAGE = {
    "no such command": ["nonsense"],
    "no such option": ["serve", "--port", "80"],
    "no such file": ["check", "-c", "none.yaml"],
    "no such dataset": ["evals", "run", "--dataset", "none.jsonl"],
    "no such evaluator": ["evals", "run", "--dataset", "answers.jsonl", "--evaluator", "refusl"],
    "no such role": ["keys", "create", "--role", "boss"],
    "no such column": ["drift", "run", "--signal", "tokns", "--reference", "a.csv", "--current", "a.csv"],
    "no such reference": ["drift", "run", "--signal", "output_tokens", "--reference", "x.csv", "--current", "a.csv"],
    "no such recording": ["demo", "--recording", "nowhere"],
    "no such token": ["dashboards", "push", "--url", "http://127.0.0.1:1", "--token-file", "none"],
    "no duration": ["alerts", "backtest", "--prometheus", "http://127.0.0.1:1", "--since", "soon"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_is_exit_2_with_a_message_and_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(ANSWERS[0]))
    tokens(tmp_path / "a.csv", 100)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip()
    assert "Traceback" not in result.output
    assert "pydantic" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [["targets"], ["drift", "list"], ["alerts", "backtest", "--prometheus", "http://127.0.0.1:1"]],
    ids=["targets", "drift list", "backtest"],
)
def test_nobody_to_ask_is_exit_1(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, bool(result.stderr.strip())) == (1, True)


def test_a_directory_that_cannot_be_made_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [str(Path(sys.executable).with_name("tidegauge")), "serve", "--data", str(tmp_path / "file" / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"tidegauge: {tmp_path / 'file' / 'data'}: Not a directory\n")


@pytest.mark.parametrize("what", ["dashboards", "alerts"])
def test_what_is_built_twice_is_the_same_and_check_notices_a_change(tmp_path: Path, what: str) -> None:
    for name in ("one", "two"):
        assert run(what, "build", "--out", name).exit_code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") != {}
    assert run(what, "build", "--out", "one", "--check").exit_code == 0
    changed = next(path for path in sorted((tmp_path / "one").rglob("*")) if path.is_file())
    changed.write_text(changed.read_text() + " ")
    stale = run(what, "build", "--out", "one", "--check")
    assert (stale.exit_code, changed.name in stale.stderr) == (1, True)
    assert f"run: tidegauge {what} build --out one" in stale.stderr
    assert contents(tmp_path / "one") != contents(tmp_path / "two")


def test_evals_run_scores_a_file(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, ANSWERS)))
    arguments = ("evals", "run", "--dataset", "answers.jsonl", "--evaluator", "refusal", "--evaluator", "json_validity")
    report = answered(*arguments)
    means = {row["evaluator"]: (row["n"], round(row["mean"], 4)) for row in report["summary"]}
    assert (report["items"], report["scored"], report["not_applicable"]) == (3, 5, 1)
    assert means == {"refusal": (3, 0.3333), "json_validity": (2, 0.5)}
    assert answered(*arguments)["run_id"] == report["run_id"]


def test_evals_list_shows_the_policies(tmp_path: Path) -> None:
    (tmp_path / "tidegauge.yaml").write_text(
        "evals: {policies: [{where: {tenant: bank}, rate: 0.2, evaluators: [length]}]}"
    )
    assert answered("evals", "list") == [{"where": {"tenant": ["bank"]}, "rate": 0.2, "evaluators": ["length"]}]


def test_drift_run_is_exit_1_on_drift_and_0_without(tmp_path: Path) -> None:
    may, june, july = (tokens(tmp_path / f"{name}.csv", mean) for name, mean in (("5", 100), ("6", 150), ("7", 100.1)))
    arguments = ("drift", "run", "--signal", "output_tokens", "--reference", str(may), "--current")
    (moved,) = answered(*arguments, str(june), code=1)
    (still,) = answered(*arguments, str(july))
    assert (moved["slice"], moved["drift"], still["drift"]) == ("all", True, False)
    assert 0 < moved["effect_low"] < moved["effect_size"] < moved["effect_high"]


def test_keys_are_made_listed_and_revoked_and_their_text_is_shown_once(tmp_path: Path) -> None:
    made = run("keys", "create", "--role", "ingest", "--name", "gateway", "--tenant", "bank")
    text = made.stdout.splitlines()[0]
    (key,) = answered("keys", "list")
    assert (key["role"], key["name"], key["tenants"], key["revoked_at"]) == ("ingest", "gateway", ["bank"], None)
    assert run("keys", "revoke", key["key_id"]).exit_code == 0
    (revoked,) = answered("keys", "list")
    assert revoked["revoked_at"] is not None
    assert text not in run("keys", "list").output + (tmp_path / "tidegauge-data" / "keys.json").read_text()
    assert run("keys", "revoke", "none").exit_code == 1


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """`check --live` with one target that answers with a recorded vLLM and one that is dead."""
    with local_server() as server:
        server.pages["/metrics"] = lambda: gzip.decompress(SCRAPE.read_bytes()).decode()
        dead = f"127.0.0.1:{free_port()}"
        targets = [{"url": f"{server.url}/metrics"}, {"url": f"http://{dead}/metrics", "labels": {"instance": "dead"}}]
        (tmp_path / "tidegauge.yaml").write_text(json.dumps({"scrape": {"targets": targets}}))
        yield lambda: answered("check", "--live", code=1)


def test_check_live_says_which_target_is_dead_and_why(live: Callable[[], dict[str, Any]]) -> None:
    good, dead = live()["targets"]
    assert (good["up"], good["engine"]) == (True, "vllm")
    assert (dead["target"], dead["up"]) == ("dead", False)
    assert "refused" in dead["problem"].lower()


def test_check_live_names_the_queries_that_find_nothing_and_not_the_others(live: Callable[[], dict[str, Any]]) -> None:
    silent = {item["where"]: " ".join(item["reasons"]) for item in live()["silent"]}
    # Nothing was scored yet; the recorded engine has a KV cache.
    assert any("tidegauge_eval_score_mean" in reasons for reasons in silent.values())
    assert not any("llm_engine_kv_cache_usage_ratio" in reasons for reasons in silent.values())
    assert all(silent.values())
