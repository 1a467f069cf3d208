"""A rule stands beside the cases that prove it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alerts.settings import Severity

__all__ = ["Case", "Rule", "Severity"]


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, one sample every `every` from time zero, and what the rule does at time `at`.

    `series` maps a series' name with labels to its values (`0+2x30`, `_` for a missing sample).  A firing case says
    the `labels` that the expression leaves on the alert, and its `value` where the annotations show it.
    """

    title: str
    series: Mapping[str, str]
    at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float | None = None
    every: str = "15s"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alerting rule.

    Durations and thresholds in `expr`, `hold`, the texts and the cases are placeholders (see `alerts.scale`), apart
    from `hold`, which is a plain duration, scaled as well.  `runbook` is a file's stem in `alerts/runbooks`,
    `dashboard` a dashboard's key in `catalog.links`.  `scope` names the labels of the alert that choose its requests
    in the console, `filters` fixed values beside them, `sort` which of them are the worst.  The first firing case has
    all labels that the expression leaves.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    runbook: str
    dashboard: str
    fires: tuple[Case, ...]
    silent: tuple[Case, ...]
    hold: str = "0s"
    scope: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    sort: Literal["duration", "time_to_first_token"] = "duration"
    labels: Mapping[str, str] = field(default_factory=dict)
