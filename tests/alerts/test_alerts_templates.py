"""Annotations are rendered as Prometheus renders them; `promtool test rules` compares the same texts."""

import math

import pytest

from alerts.templates import NOW, UnsupportedTemplateError, render


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        pytest.param("{{ $value | humanize }}", 1234567.0, "1.235M", id="humanize_large"),
        pytest.param("{{ $value | humanize }}", 0.0123, "12.3m", id="humanize_small"),
        pytest.param("{{ $value | humanize1024 }}B", 3.0 * 2**30, "3GiB", id="humanize1024"),
        pytest.param("{{ $value | humanizeDuration }}", 45.454545, "45.45s", id="seconds"),
        pytest.param("{{ $value | humanizeDuration }}", 3725.0, "1h 2m 5s", id="hours"),
        pytest.param("{{ $value | humanizeDuration }}", 0.0042, "4.2ms", id="milliseconds"),
        pytest.param("{{ $value | humanizeDuration }}", math.inf, "+Inf", id="infinite"),
        pytest.param("{{ $value | humanizePercentage }}", 0.98765, "98.77%", id="percentage"),
        pytest.param('{{ $value | printf "%.2f" }}', 0.314, "0.31", id="printf"),
        pytest.param("{{ $labels.model }} on {{ $labels.gone }}", 0.0, "a/b c on ", id="labels"),
        pytest.param("model={{ $labels.model | urlquery }}", 0.0, "model=a%2Fb+c", id="urlquery"),
        pytest.param(f"at={NOW}", 0.0, "at=1700000000", id="time"),
    ],
)
def test_template_is_rendered_as_prometheus_does(template: str, value: float, expected: str) -> None:
    assert render(template, {"model": "a/b c"}, value, 1.7e9) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param("{{ $externalURL }}", "has an action that is not rendered", id="action"),
        pytest.param("{{ $value | toTime }}", "'toTime' is none of humanize", id="function"),
    ],
)
def test_what_cannot_be_rendered_is_an_error(template: str, message: str) -> None:
    with pytest.raises(UnsupportedTemplateError, match=message):
        render(template, {}, 1.0, 0.0)


def test_label_that_looks_like_a_template_is_left_alone() -> None:
    assert render("{{ $labels.model }}", {"model": "{{ $value }}"}, 1.0, 0.0) == "{{ $value }}"
