"""Relabelling as Prometheus documents it, and what a step that makes no sense is told."""

import hashlib

import pytest
from pydantic import ValidationError

from collector.discovery.relabel import Relabelling, RelabelSettings, hashmod

A = {"a": "foo", "b": "bar", "c": "baz"}
# Input, steps and output of `TestRelabel` in Prometheus's model/relabel, its names of labels kept; None is dropped.
CASES: dict[str, tuple[dict[str, str], list[dict[str, object]], dict[str, str] | None]] = {
    "replace with a group": (
        A,
        [
            {
                "source_labels": ["a"],
                "regex": "f(.*)",
                "target_label": "d",
                "separator": ";",
                "replacement": "ch${1}-ch${1}",
            }
        ],
        {**A, "d": "choo-choo"},
    ),
    "several labels and steps": (
        A,
        [
            {
                "source_labels": ["a", "b"],
                "regex": "f(.*);(.*)r",
                "target_label": "a",
                "separator": ";",
                "replacement": "b${1}${2}m",
            },
            {
                "source_labels": ["c", "a"],
                "regex": "(b).*b(.*)ba(.*)",
                "target_label": "d",
                "separator": ";",
                "replacement": "$1$2$2$3",
            },
        ],
        {"a": "boobam", "b": "bar", "c": "baz", "d": "boooom"},
    ),
    "drop, and nothing after it": (
        {"a": "foo"},
        [
            {"source_labels": ["a"], "regex": ".*o.*", "action": "drop"},
            {"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "ch$1-ch$1"},
        ],
        None,
    ),
    "drop by two labels": (
        {"a": "foo", "b": "bar"},
        [{"source_labels": ["a"], "regex": ".*o.*", "action": "drop"}],
        None,
    ),
    "the expression is anchored": (
        {"a": "abc"},
        [{"source_labels": ["a"], "regex": ".*(b).*", "target_label": "d", "separator": ";", "replacement": "$1"}],
        {"a": "abc", "d": "b"},
    ),
    "no match, no drop": (
        {"a": "foo"},
        [{"source_labels": ["a"], "regex": "no-match", "action": "drop"}],
        {"a": "foo"},
    ),
    "half a match, no drop": ({"a": "foo"}, [{"source_labels": ["a"], "regex": "f|o", "action": "drop"}], {"a": "foo"}),
    "keep without a match": ({"a": "foo"}, [{"source_labels": ["a"], "regex": "no-match", "action": "keep"}], None),
    "keep with a match": ({"a": "foo"}, [{"source_labels": ["a"], "regex": "f.*", "action": "keep"}], {"a": "foo"}),
    "no match keeps the label": (
        {"a": "boo"},
        [{"source_labels": ["a"], "regex": "f", "target_label": "b", "replacement": "bar"}],
        {"a": "boo"},
    ),
    "an empty replacement deletes": (
        {"a": "foo"},
        [{"source_labels": ["a"], "regex": "(f).*", "target_label": "a", "replacement": "$2"}],
        {},
    ),
    "a missing label is empty": (
        {"a": "foo", "b": "bar", "c": "baz"},
        [{"source_labels": ["foobar"], "regex": "", "target_label": "d", "replacement": "x"}],
        {**A, "d": "x"},
    ),
    "hashmod": (
        A,
        [{"source_labels": ["c"], "target_label": "d", "separator": ";", "action": "hashmod", "modulus": 1000}],
        {**A, "d": "976"},
    ),
    "hashmod over lines": (
        {**A, "a": "foo\nbar"},
        [{"source_labels": ["a"], "target_label": "b", "action": "hashmod", "modulus": 1000}],
        {**A, "a": "foo\nbar", "b": "734"},
    ),
    "labelmap": (
        {"a": "foo", "b1": "bar", "b2": "baz"},
        [{"regex": "(b.*)", "replacement": "bar_${1}", "action": "labelmap"}],
        {"a": "foo", "b1": "bar", "b2": "baz", "bar_b1": "bar", "bar_b2": "baz"},
    ),
    "labelmap of meta labels": (
        {"a": "foo", "__meta_my_bar": "aaa", "__meta_my_baz": "bbb", "__meta_other": "ccc"},
        [{"regex": "__meta_(my.*)", "replacement": "${1}", "action": "labelmap"}],
        {
            "a": "foo",
            "__meta_my_bar": "aaa",
            "__meta_my_baz": "bbb",
            "__meta_other": "ccc",
            "my_bar": "aaa",
            "my_baz": "bbb",
        },
    ),
    "a name from a value": (
        {"a": "some-name-value"},
        [{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${2}", "target_label": "${1}"}],
        {"a": "some-name-value", "name": "value"},
    ),
    "a name that is none": (
        {"a": "some-name-0"},
        [{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${1}", "target_label": "${2}"}],
        {"a": "some-name-0"},
    ),
    "a group that is not there": (
        {"a": "some-name-value"},
        [{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${1}", "target_label": "${3}"}],
        {"a": "some-name-value"},
    ),
    "a name with braces left open": (
        {"a": "some-name-value"},
        [{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${1}", "target_label": "0${3"}],
        {"a": "some-name-value"},
    ),
    "kubernetes address and port": (
        {"__meta_sd_tags": "path:/secret,job:some-job,label:foo=bar"},
        [
            {
                "source_labels": ["__meta_sd_tags"],
                "regex": "(?:.+,|^)path:(/[^,]+).*",
                "replacement": "${1}",
                "target_label": "__metrics_path__",
            },
            {
                "source_labels": ["__meta_sd_tags"],
                "regex": "(?:.+,|^)job:([^,]+).*",
                "replacement": "${1}",
                "target_label": "job",
            },
            {
                "source_labels": ["__meta_sd_tags"],
                "regex": "(?:.+,|^)label:([^=]+)=([^,]+).*",
                "replacement": "${2}",
                "target_label": "${1}",
            },
        ],
        {
            "__meta_sd_tags": "path:/secret,job:some-job,label:foo=bar",
            "__metrics_path__": "/secret",
            "job": "some-job",
            "foo": "bar",
        },
    ),
    "labeldrop": (
        {"a": "foo", "b1": "bar", "b2": "baz"},
        [{"regex": "(b.*)", "action": "labeldrop"}],
        {"a": "foo"},
    ),
    "labelkeep": (
        {"a": "foo", "b1": "bar", "b2": "baz"},
        [{"regex": "(b.*)", "action": "labelkeep"}],
        {"b1": "bar", "b2": "baz"},
    ),
    "upper and lower case": (
        {"foo": "bAr123Foo"},
        [
            {"source_labels": ["foo"], "action": "uppercase", "target_label": "foo_uppercase"},
            {"source_labels": ["foo"], "action": "lowercase", "target_label": "foo_lowercase"},
        ],
        {"foo": "bAr123Foo", "foo_lowercase": "bar123foo", "foo_uppercase": "BAR123FOO"},
    ),
    "keepequal, equal": (
        {"__tmp_port": "1234", "__port1": "1234", "__port2": "5678"},
        [{"source_labels": ["__tmp_port"], "action": "keepequal", "target_label": "__port1"}],
        {"__tmp_port": "1234", "__port1": "1234", "__port2": "5678"},
    ),
    "keepequal, not equal": (
        {"__tmp_port": "1234", "__port1": "1234", "__port2": "5678"},
        [{"source_labels": ["__tmp_port"], "action": "keepequal", "target_label": "__port2"}],
        None,
    ),
    "dropequal, equal": (
        {"__tmp_port": "1234", "__port1": "1234"},
        [{"source_labels": ["__tmp_port"], "action": "dropequal", "target_label": "__port1"}],
        None,
    ),
    "dropequal, not equal": (
        {"__tmp_port": "1234", "__port2": "5678"},
        [{"source_labels": ["__tmp_port"], "action": "DropEqual", "target_label": "__port2"}],
        {"__tmp_port": "1234", "__port2": "5678"},
    ),
    "Go's names of groups": (
        {"a": "x-y"},
        [{"source_labels": ["a"], "regex": "(x)-(?P<last>y)", "target_label": "d", "replacement": "$1_$last-$$"}],
        {"a": "x-y", "d": "y-$"},
    ),
}


@pytest.mark.parametrize(("labels", "steps", "expected"), CASES.values(), ids=CASES.keys())
def test_labels_come_out_as_prometheus_documents(
    labels: dict[str, str], steps: list[dict[str, object]], expected: dict[str, str] | None
) -> None:
    settings = [RelabelSettings.model_validate(step) for step in steps]
    assert Relabelling(settings).of(labels) == expected


def test_the_hash_is_the_end_of_the_md5() -> None:
    assert hashmod("baz", 1000) == int(hashlib.md5(b"baz").hexdigest()[16:], 16) % 1000 == 976


WRONG = {
    "regex": ({"regex": "a("}, "regex", "'a(' is no regular expression (RE2)"),
    "look-ahead": ({"regex": "(?=a)"}, "regex", "'(?=a)' is no regular expression (RE2)"),
    "action": ({"action": "rename"}, "action", "Input should be 'replace', 'keep'"),
    "no target": ({"source_labels": ["a"]}, "", "target_label is missing; action replace writes or compares it"),
    "no modulus": ({"action": "hashmod", "target_label": "a"}, "", "modulus is missing; hashmod divides by it"),
    "name": ({"action": "lowercase", "target_label": "a-b"}, "", "target_label 'a-b' is no label name"),
    "labeldrop": (
        {"action": "labeldrop", "regex": "a", "source_labels": ["a"]},
        "",
        "source_labels has no meaning for action labeldrop, which takes regex alone",
    ),
    "keepequal": (
        {"action": "keepequal", "source_labels": ["a"], "target_label": "b", "regex": "x"},
        "",
        "regex has no meaning for action keepequal",
    ),
}


@pytest.mark.parametrize(("step", "where", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_step_that_makes_no_sense_says_which_key_and_why(step: dict[str, object], where: str, message: str) -> None:
    with pytest.raises(ValidationError, match="1 validation error") as caught:
        RelabelSettings.model_validate(step)
    (error,) = caught.value.errors()
    assert error["loc"] == ((where,) if where else ())
    assert message in error["msg"]
