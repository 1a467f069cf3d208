"""What is scraped, and what the user is told when that cannot be."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ValidationError

from catalog.instruments import Instruments
from collector.discovery.listing import TargetList
from collector.settings import ScrapeSettings, TargetSettings
from collector.targets import checked

WRONG = {
    "no scheme": ("localhost:8000", {}, "'localhost:8000' has no scheme; write 'http://localhost:8000/metrics'"),
    "no scheme, a path": ("gpu/metrics", {}, "'gpu/metrics' has no scheme; write 'http://gpu/metrics'"),
    "ftp": ("ftp://a/b", {}, "'ftp://a/b': the scheme 'ftp' cannot be scraped; write http or https"),
    "no host": ("http:///metrics", {}, "'http:///metrics' has no host; write for example 'http://gpu-7:8000/metrics'"),
    "port": ("http://a:port/", {}, "'http://a:port/' is no URL: Port could not be cast to integer value as 'port'"),
    "label name": ("http://a", {"a-b": "c"}, "'a-b' is no label name; letters, digits and _ only"),
    "reserved": ("http://a", {"target": "c"}, "the label 'target' is Tidegauge's own; choose another name"),
    "long label": ("http://a", {"env": "x" * 300}, "label 'env': 300 characters; at most 256"),
}


@pytest.mark.parametrize(("url", "labels", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_target_that_cannot_be_says_what_to_write(url: str, labels: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        checked(url, labels)
    assert str(caught.value) == message


def test_a_target_is_named_by_its_instance_else_by_host_and_port() -> None:
    plain = checked("http://user:secret@gpu-7:8000?token=x")
    named = checked("http://gpu-7:8000/metrics", {"instance": "seven"})
    assert (plain.name, plain.url, plain.shown_url) == (
        "gpu-7:8000",
        "http://user:secret@gpu-7:8000/metrics?token=x",
        "http://gpu-7:8000/metrics",
    )
    assert named.name == "seven"


SETTINGS = {
    "url": ({"targets": [{"url": "localhost:8000"}]}, ("targets", 0, "url"), "has no scheme"),
    "labels": ({"targets": [{"url": "http://a", "labels": {"le": "1"}}]}, ("targets", 0, "labels"), "Tidegauge's own"),
    "duration": ({"interval": "five"}, ("interval",), "'five' is no duration; write '1s', '500ms' or '5m'"),
    "timeout": ({"interval": "2s", "timeout": "3s"}, (), "timeout 3s is longer than interval 2s"),
    "typo": ({"intervall": "5s"}, ("intervall",), "Extra inputs"),
    "key file": (
        {"targets": [{"url": "http://a", "bearer_token_file": "/no/such/file"}]},
        ("targets", 0, "bearer_token_file"),
        "'/no/such/file' cannot be read: No such file or directory",
    ),
    "same name": (
        {"targets": [{"url": "http://a:1/x"}, {"url": "http://a:1/y"}]},
        (),
        "'http://a:1/x' and 'http://a:1/y' are both called 'a:1'; give one of them another label 'instance'",
    ),
}


@pytest.mark.parametrize(("given", "where", "message"), SETTINGS.values(), ids=SETTINGS.keys())
def test_wrong_settings_say_where_and_what(given: dict[str, object], where: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        ScrapeSettings.model_validate(given)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]


def test_a_shorter_interval_brings_a_shorter_timeout() -> None:
    settings = ScrapeSettings.model_validate({"interval": "500ms", "max_body": "2MiB"})
    assert (settings.timeout, settings.staleness(), settings.max_body) == (0.4, 1.5, 2 * 1024 * 1024)


class Folder:
    """A directory of file_sd files and the list that reads it."""

    def __init__(self, path: Path, *static: str) -> None:
        self.path = path
        self.registry = CollectorRegistry()
        patterns = [str(path / "*.yaml"), str(path / "*.json")]
        self.list = TargetList([checked(url) for url in static], patterns, Instruments(self.registry))

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def names(self) -> list[str]:
        return [target.name for target in self.list.refresh()]

    def failures(self) -> float | None:
        return self.registry.get_sample_value("tidegauge_discovery_errors_total", {"source": "file_sd"})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, "http://static:1")


GROUPS = [{"targets": ["a:1", "b:2"], "labels": {"environment": "prod", "__metrics_path__": "/m", "__meta_x": "y"}}]


@pytest.mark.parametrize("name", ["t.yaml", "t.json"])
def test_prometheus_s_files_are_read(folder: Folder, name: str) -> None:
    folder.write(name, json.dumps(GROUPS))
    found = folder.list.refresh()
    assert [(target.url, dict(target.labels)) for target in found[1:]] == [
        ("http://a:1/m", {"environment": "prod"}),
        ("http://b:2/m", {"environment": "prod"}),
    ]
    assert folder.registry.get_sample_value("tidegauge_targets", {"source": "file_sd"}) == 2


def test_our_own_form_is_read(folder: Folder) -> None:
    folder.write("t.yaml", "- url: http://gpu:8000/metrics\n  labels: {instance: seven}\n")
    assert folder.names() == ["static:1", "seven"]


def test_files_that_change_come_or_go_are_followed(folder: Folder) -> None:
    folder.write("a.yaml", "[{targets: ['a:1']}]")
    seen = [folder.names()]
    folder.write("a.yaml", "[{targets: ['a:1', 'a:2']}]")
    folder.write("b.yaml", "[{targets: ['b:1']}]")
    seen.append(folder.names())
    (folder.path / "a.yaml").unlink()
    seen.append(folder.names())
    assert seen == [["static:1", "a:1"], ["static:1", "a:1", "a:2", "b:1"], ["static:1", "b:1"]]


BROKEN = {
    "YAML": ("a.yaml", "[{targets: [", "not YAML"),
    "mapping": ("a.yaml", "targets: ['a:1']", "holds a dict; write a list"),
    "no targets": ("a.yaml", "[{labels: {a: b}}]", "[0]: neither 'targets' nor 'url'"),
    "typo": ("a.yaml", "[{targets: ['a:1'], label: {a: b}}]", "[0]: unknown key 'label'"),
    "number": ("a.yaml", "[{targets: [8000]}]", "[0]: 8000 is no address"),
    "url": ("a.yaml", "[{url: 'a:1'}]", "[0]: 'a:1' has no scheme"),
    "twice": ("a.yaml", "[{targets: ['a:1', 'a:1']}]", "are both called 'a:1'"),
    "UTF-8": ("a.yaml", "\udcff", "can't decode byte"),
    "empty": ("a.yaml", "", "empty: being written, or torn; write [] to say that there are no targets"),
    "blank": ("a.yaml", " \n", "empty: being written, or torn"),
}


@pytest.mark.parametrize(("name", "text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_keeps_its_last_good_version_counts_and_says_why(
    folder: Folder, name: str, text: str, message: str
) -> None:
    folder.write(name, "[{targets: ['good:1']}]")
    before = folder.names()
    (folder.path / name).write_bytes(text.encode(errors="surrogateescape"))
    after = folder.names()
    (error,) = folder.list.errors
    assert (before, after, folder.failures()) == (["static:1", "good:1"], ["static:1", "good:1"], 1.0)
    assert error.startswith(f"{folder.path / name}: ")
    assert message in error
    assert error.endswith("; its last good version (1 targets) stays in use")


def test_an_empty_list_says_that_there_are_no_targets(folder: Folder) -> None:
    folder.write("a.yaml", "[{targets: ['a:1']}]")
    seen = [folder.names()]
    folder.write("a.yaml", "[]")
    assert ([*seen, folder.names()], folder.list.errors) == ([["static:1", "a:1"], ["static:1"]], [])


def test_broken_json_says_the_line_and_heals(folder: Folder) -> None:
    folder.write("a.json", '[\n{"targets": ["a:1"]},\n]')
    assert folder.names() == ["static:1"]
    assert folder.list.errors[0].startswith(f"{folder.path / 'a.json'}: line ")
    folder.write("a.json", '[{"targets": ["a:1"]}]')
    assert (folder.names(), folder.list.errors) == (["static:1", "a:1"], [])


def test_two_files_that_share_a_name_say_so_and_the_first_wins(folder: Folder) -> None:
    folder.write("a.yaml", "[{url: 'http://a:1/x'}]")
    folder.write("b.yaml", "[{url: 'http://a:1/y'}, {url: 'http://c:1'}]")
    assert [target.url for target in folder.list.refresh()][1:] == ["http://a:1/x", "http://c:1/metrics"]
    assert folder.list.errors == [
        f"{folder.path / 'b.yaml'}: left out: 'http://a:1/x' and 'http://a:1/y' are both called 'a:1'; "
        "give one of them another label 'instance'"
    ]


@pytest.mark.parametrize("model", [ScrapeSettings, TargetSettings], ids=lambda model: model.__name__)
def test_every_setting_is_documented(model: type[BaseModel]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
    assert {name for name in model.model_fields if f"`{name}`" not in text} == set()
