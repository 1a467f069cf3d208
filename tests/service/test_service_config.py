"""The configuration: an empty file works, a fault is named with its key, the value as written, and the fix."""

from importlib.resources import files
from pathlib import Path

import pytest

from service.config import Config, ConfigError, load

SECRET = "sk-do-not-show"


def write(directory: Path, text: str) -> Path:
    path = directory / "tidegauge.yaml"
    path.write_text(text)
    return path


def faults(directory: Path, text: str, **environment: str) -> str:
    """The whole error text for a file."""
    with pytest.raises(ConfigError, match=r"tidegauge\.yaml") as caught:
        load(write(directory, text), environment)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"], ids=["empty", "comment", "document"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(write(tmp_path, text), {}) == load(None, {}) == Config()


def test_the_shipped_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    shipped = load(write(tmp_path, files("service").joinpath("tidegauge.yaml").read_text()), {})
    assert shipped.model_dump(mode="json") == Config().model_dump(mode="json")


def test_every_commented_section_of_the_shipped_file_is_valid_too(tmp_path: Path) -> None:
    text = files("service").joinpath("tidegauge.yaml").read_text()
    for commented, plain in (
        ("  targets: []\n  #  - url", "  targets:\n    - url"),
        ("  #    labels", "      labels"),
        ("  # file_sd", "  file_sd"),
        ("  # judge", "  judge"),
        ("  # policies:\n  #   - {where", "  policies:\n    - {where"),
        ("  #   - {where", "    - {where"),
        ("# public_url", "public_url"),
        ("# alerts:\n#   receivers:\n#     -", "alerts:\n  receivers:\n    -"),
        ("#   slos:\n#     -", "  slos:\n    -"),
        ("# telemetry", "telemetry"),
    ):
        assert commented in text
        text = text.replace(commented, plain)
    loaded = load(write(tmp_path, text), {})
    assert [target.url for target in loaded.scrape.targets] == ["http://gpu-7:8000/metrics"]
    defaults = load(write(tmp_path, "evals: {judge: {url: 'http://judge', model: m}}"), {})
    assert loaded.evals.effective_policies() == defaults.evals.effective_policies()
    assert loaded.alerts.receivers[0].name == "on-call"


CASES = {
    "top": ("listn: 1", "listn: there is no such key; did you mean 'listen'?"),
    "in a list": ("scrape: {targets: [{ulr: x}]}", "scrape.targets[0].ulr: there is no such key; did you mean 'url'?"),
    "second of a list": (
        "drift: {signals: [{name: a, column: spans.output_tokens}, {name: b, clumn: spans.output_tokens}]}",
        "drift.signals[1].clumn: there is no such key; did you mean 'column'?",
    ),
    "optional section": (
        "evals: {judge: {url: 'http://judge', model: m, token_per_day: 1}}",
        "evals.judge.token_per_day: there is no such key; did you mean 'tokens_per_day'?",
    ),
    "nothing near": (
        "telemetry: {zzz: 1}",
        "telemetry.zzz: there is no such key; there are log_level, otlp_endpoint",
    ),
    "key is a number": ("5: 6", "[5]: a key is text; put it in quotes"),
    "required": ("scrape: {targets: [{labels: {a: b}}]}", "scrape.targets[0].url: is not set, and has no default"),
    "no port": ("listen: localhost", "listen: 'localhost' is not host:port; write for example '127.0.0.1:8433'"),
    "a URL": (
        "otlp_grpc: http://127.0.0.1:4317",
        "otlp_grpc: 'http://127.0.0.1:4317' is not host:port; write for example '127.0.0.1:8433'",
    ),
    "port too large": (
        "otlp_http: 127.0.0.1:99999",
        "otlp_http: '127.0.0.1:99999' is not host:port; write for example '127.0.0.1:8433'",
    ),
    "bare IPv6": ("listen: '::1:8433'", "listen: '::1:8433' is not host:port; write for example '127.0.0.1:8433'"),
    "no scheme": (
        "scrape: {targets: [{url: 'localhost:8000'}]}",
        "scrape.targets[0].url: 'localhost:8000' has no scheme; write 'http://localhost:8000/metrics'",
    ),
    "no mapping": ("scrape: 5", "scrape: 5 is no mapping; write keys below it"),
    "no list": ("scrape: {targets: 'http://x'}", "scrape.targets: 'http://x' is no list; write [it] or lines with '-'"),
    "empty list": ("evals: {policies: [{evaluators: []}]}", "evals.policies[0].evaluators: is empty"),
    "no number": ("evals: {batch: many}", "evals.batch: 'many' is no whole number"),
    "out of range": ("evals: {batch: 0}", "evals.batch: 0 is not greater than or equal to 1"),
    "no duration": ("drift: {round: soon}", "drift.round: 'soon' is no duration; write '1s', '500ms' or '5m'"),
    "no size": ("store: {memory_limit: big}", "store.memory_limit: 'big' is no size; write for example '300MB'"),
    "no such word": (
        "telemetry: {log_level: loud}",
        "telemetry.log_level: 'loud' is not 'debug', 'info', 'warning' or 'error'",
    ),
    "judge without a judge": (
        "evals: {policies: [{evaluators: [judge]}]}",
        "evals: a policy asks for the judge, but judge.url and judge.model are not set",
    ),
    "unknown evaluator's parameter": (
        "evals: {policies: [{evaluators: [{repetition: {m: 3}}]}]}",
        "evals.policies[0].evaluators[0]: repetition: no parameter m; it takes name, n",
    ),
    "timeout past interval": (
        "scrape: {interval: 1s, timeout: 3s}",
        "scrape: timeout 3s is longer than interval 1s; write a shorter one",
    ),
}


@pytest.mark.parametrize(("text", "fault"), CASES.values(), ids=CASES)
def test_a_fault_is_named_with_its_key_and_the_fix(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, text) == f"tidegauge.yaml: 1 problem\n  {fault}"


def test_a_section_without_keys_is_an_empty_one(tmp_path: Path) -> None:
    assert load(write(tmp_path, "evals:\n  # judge: {}\ngpu:\n"), {}) == Config()


def test_a_judge_alone_scores_a_share_of_the_chats(tmp_path: Path) -> None:
    text = files("service").joinpath("tidegauge.yaml").read_text().replace("  # judge", "  judge")
    policies = load(write(tmp_path, text), {}).evals.effective_policies()
    assert [(policy.rate, [use.kind for use in policy.evaluators][-1]) for policy in policies] == [
        (1.0, "repetition"),
        (0.05, "judge"),
    ]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = """\
listen: localhost
otlp_grpc: ${NOT_SET}
gpu: {intervall: 1s}
evals: {batch: 0}
drift: {signals: [{name: x, column: spans.output_tokens, by: [modl]}]}
"""
    assert faults(tmp_path, text) == (
        "tidegauge.yaml: 5 problems\n"
        "  drift.signals[0]: by: spans have no column 'modl'; did you mean 'model'?\n"
        "  evals.batch: 0 is not greater than or equal to 1\n"
        "  gpu.intervall: there is no such key; did you mean 'interval'?\n"
        "  listen: 'localhost' is not host:port; write for example '127.0.0.1:8433'\n"
        "  otlp_grpc: ${NOT_SET} is not set in the environment"
    )


def test_every_variable_that_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    text = "data: /var/${A}/${B}\nscrape: {targets: [{url: 'http://x', bearer_token: '${C}'}]}"
    assert faults(tmp_path, text, B="b") == (
        "tidegauge.yaml: 2 problems\n"
        "  data: ${A} is not set in the environment\n"
        "  scrape.targets[0].bearer_token: ${C} is not set in the environment"
    )


def test_variables_are_replaced_inside_values(tmp_path: Path) -> None:
    path = write(tmp_path, "data: /var/${NAME}/data\nscrape: {targets: [{url: 'http://${HOST}:8000/metrics'}]}")
    loaded = load(path, {"NAME": "tide", "HOST": "gpu-7"})
    assert (loaded.data, loaded.scrape.targets[0].url) == (Path("/var/tide/data"), "http://gpu-7:8000/metrics")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: ${NOT_NEEDED}\npublic_url: http://file.example")
    loaded = load(path, {"TIDEGAUGE_LISTEN": "127.0.0.1:9000", "TIDEGAUGE_DATA": "/elsewhere"})
    assert (loaded.listen, loaded.data, loaded.public_url) == (
        "127.0.0.1:9000",
        Path("/elsewhere"),
        "http://file.example",
    )


def test_a_fault_of_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="environment") as caught:
        load(None, {"TIDEGAUGE_LISTEN": "8433"})
    assert str(caught.value) == (
        "environment: 1 problem\n  TIDEGAUGE_LISTEN: '8433' is not host:port; write for example '127.0.0.1:8433'"
    )


UNREADABLE = {
    "not YAML": (
        "scrape: [",
        "tidegauge.yaml: not YAML, line 1, column 10: expected the node content, but found '<stream end>'",
    ),
    "a list": ("- listen", "tidegauge.yaml: holds a list; write keys, as in 'listen: 127.0.0.1:8433'"),
    "a word": ("listen", "tidegauge.yaml: holds a str; write keys, as in 'listen: 127.0.0.1:8433'"),
}


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_mapping_is_told(tmp_path: Path, text: str, message: str) -> None:
    assert faults(tmp_path, text) == message


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tidegauge.yaml"
    path.write_bytes(b"data: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8, at byte 6"):
        load(path, {})


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match="none") as caught:
        load(path, {})
    assert str(caught.value) == f"{path}: No such file or directory; 'tidegauge init' writes one"


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    text = (
        "evals: {judge: {url: 'http://judge', model: m, api_key: '${KEY}'}}\n"
        "scrape: {targets: [{url: 'http://x', bearer_token: '${KEY}'}]}"
    )
    loaded = load(write(tmp_path, text), {"KEY": SECRET})
    assert loaded.evals.judge is not None
    assert loaded.evals.judge.key() == loaded.scrape.targets[0].target().token == SECRET
    assert SECRET not in f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"


LEAKS = {
    "a number for a key": f"evals: {{judge: {{url: 'http://judge', model: m, api_key: [{SECRET}]}}}}",
    "a misspelt key": f"evals: {{judge: {{url: 'http://judge', model: m, api_kye: {SECRET}}}}}",
    "a number wanted": "evals: {batch: '${KEY}'}",
    "an address wanted": "listen: ${KEY}",
    "a URL wanted": "scrape: {targets: [{url: '${KEY}'}]}",
    "broken YAML": f"evals: {{judge: {{api_key: {SECRET}\n- x",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_secrets_are_in_no_error(tmp_path: Path, text: str) -> None:
    assert SECRET not in faults(tmp_path, text, KEY=SECRET)


def test_links_and_webhook_follow_the_address_unless_they_are_set() -> None:
    own = load(None, {"TIDEGAUGE_LISTEN": "127.0.0.1:9000", "TIDEGAUGE_PUBLIC_URL": "https://tide.example/"})
    settings = own.alert_settings()
    assert (settings.public_url, settings.webhook_url, settings.scrape_target) == (
        "https://tide.example",
        "http://127.0.0.1:9000/api/v1/alerts/webhook",
        "127.0.0.1:9000",
    )
