"""All rules, by theme."""

from collections.abc import Callable
from typing import NamedTuple

from alerts.rule import Rule
from alerts.rules import availability, disk, drift, gpu, itself, latency, quality, saturation, slo
from alerts.settings import AlertSettings


class Theme(NamedTuple):
    """Rules that are evaluated together, `every` so often; `None` is the settings' evaluation interval."""

    name: str
    rules: Callable[[AlertSettings], tuple[Rule, ...]]
    every: str | None = None


THEMES = (
    Theme("availability", lambda settings: availability.RULES),
    Theme("slo", slo.rules, every="1m"),  # its windows are days long; a minute more or less is nothing to them
    Theme("latency", lambda settings: latency.RULES),
    Theme("saturation", lambda settings: saturation.RULES),
    Theme("gpu", lambda settings: gpu.RULES),
    Theme("quality", quality.rules),
    Theme("drift", lambda settings: drift.RULES),
    Theme("itself", lambda settings: itself.RULES),
    Theme("disk", lambda settings: disk.RULES, every="1m"),
)


def rules(settings: AlertSettings) -> list[Rule]:
    """Every rule that these settings make."""
    return [rule for theme in THEMES for rule in theme.rules(settings)]
