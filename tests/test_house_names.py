"""One fact, one place: metrics are named in the catalog; files stay short; nothing of this machine is kept."""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from catalog.family import Family, Origin, families, family_of_sample

ROOT = Path(__file__).parents[1]
ROOMS = ("catalog", "store", "collector", "evals", "dashboards", "alerts", "service")
# PromQL names metrics; it is checked against the catalog where it stands.
HOLDERS_OF_PROMQL = ("alerts/rules/", "dashboards/")
NAMESPACES = ("counters", "gauges", "histograms")
LONGEST_MODULE = 600
LEFT_BEHIND = ("__pycache__", "tidegauge-data", "dist", "build")


@cache
def kept() -> tuple[Path, ...]:
    """The project's files, without what tools and runs leave behind."""
    found: list[Path] = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in LEFT_BEHIND and not name.startswith(".")]
        found += (Path(folder, name) for name in names if not name.endswith((".pyc", ".duckdb")))
    return tuple(found)


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


@cache
def instruments() -> tuple[tuple[str, str, str], ...]:
    return tuple(_instruments())


def _instruments() -> Iterator[tuple[str, str, str]]:
    """Place, namespace and name of every `.counters.<name>` and the like."""
    for file, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (node.attr.startswith("tidegauge_") or node.attr in families()):
                namespace = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
                yield f"{file}:{node.lineno}", namespace, node.attr


def test_no_metric_is_named_in_a_string_outside_promql() -> None:
    named = set(families()) | set(family_of_sample())
    found = [
        f"{file}:{node.lineno}: {node.value!r}"
        for file, tree in modules()
        if not file.startswith(HOLDERS_OF_PROMQL)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in named
    ]
    assert found == []


def test_every_instrument_in_use_is_declared_with_its_kind() -> None:
    wrong = [
        f"{place}: {namespace}.{name}"
        for place, namespace, name in instruments()
        if name not in families() or namespace not in NAMESPACES or f"{families()[name].kind}s" != namespace
    ]
    assert wrong == []


@pytest.mark.parametrize("family", [f for f in families().values() if f.origin is Origin.SELF], ids=lambda f: f.name)
def test_every_family_about_ourselves_is_counted_somewhere(family: Family) -> None:
    assert family.name in {name for _, _, name in instruments()}


def test_no_module_is_longer_than_a_sitting() -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in kept() if path.suffix == ".py"}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_MODULE} == {}


def text_of(path: Path) -> str:
    """The file's text; empty where it holds none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_file_names_paths_or_hosts_of_the_machine_it_was_made_on() -> None:
    # In pieces, so that this file passes its own test.
    machine = re.compile("|".join((r"(?<![\w./>}-])/" + r"(work|root|home/\w+)/", "/tmp/" + "tg", "index" + "-url")))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in kept()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if machine.search(line)
    ]
    assert found == []


def test_every_package_says_that_it_is_typed() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").exists()] == []
