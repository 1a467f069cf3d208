"""Settings of drift detection: which signals are watched, how often, and how many false pages are affordable."""

from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from catalog.duration import Duration, spelled
from store.tables import SPANS

MONTH = 30 * 86400.0


Seconds = Annotated[Duration, PlainSerializer(spelled)]
Positive = Annotated[Seconds, Field(gt=0)]


class SignalKind(StrEnum):
    """How values are compared; `auto` looks at them: text is a category, 0 and 1 alone a rate, the rest numbers."""

    AUTO = "auto"
    NUMBER = "number"
    RATE = "rate"
    CATEGORY = "category"


class Direction(StrEnum):
    """Which way a change must go to matter."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalSettings(_Settings):
    """One signal: a column of `spans` or an evaluator's score, and the dimensions it is sliced by."""

    name: str = Field(min_length=1, max_length=100, description="what findings and metrics call it")
    column: str = Field(
        pattern=r"^(spans|scores)\.[A-Za-z_][A-Za-z0-9_.-]*$", description="`spans.<column>` or `scores.<evaluator>`"
    )
    by: tuple[str, ...] = Field(default=(), description="dimensions it is sliced by: columns of spans, or `model`")
    kind: SignalKind = Field(
        default=SignalKind.AUTO,
        description="how values are compared; for `auto` text is a category, 0 and 1 alone a rate, the rest numbers",
    )
    minimum_effect: float | None = Field(
        default=None,
        gt=0,
        description="smaller changes do not matter; share points for rates, the reference's spreads for numbers, "
        "Jensen-Shannon distance for categories",
    )
    direction: Direction = Field(default=Direction.BOTH, description="which way a change must go to matter")

    @model_validator(mode="before")
    @classmethod
    def _no_repeats(cls, value: Any) -> Any:
        by = value.get("by", ()) if isinstance(value, dict) else ()
        if isinstance(by, list | tuple) and len(set(map(str, by))) != len(by):
            raise ValueError(f"by: {', '.join(map(str, by))} names a dimension twice")
        return value

    @model_validator(mode="after")
    def _columns_exist(self) -> "SignalSettings":
        table, _, column = self.column.partition(".")
        if table == "spans":
            _known("column", column, SPANS.names)
        for dimension in self.by:
            _known("by", dimension, [*SPANS.names, "model"])
        return self


def _known(key: str, name: str, names: list[str]) -> None:
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key}: spans have no column {name!r}{hint}")


DEFAULT_SIGNALS = (
    SignalSettings(name="refusal", column="scores.refusal", by=("model", "tenant", "prompt_version")),
    SignalSettings(name="output length", column="spans.output_tokens", by=("model",)),
)


class DriftSettings(_Settings):
    """Everything about drift; an empty mapping gives working defaults."""

    false_pages_per_30_days: float = Field(
        default=1.0,
        ge=0,
        description="false findings to expect over everything watched; every threshold follows from it",
    )
    signals: tuple[SignalSettings, ...] = Field(default=DEFAULT_SIGNALS, description="what is watched")
    round: Positive = Field(default=60.0, description="time between two looks")
    window: Positive = Field(default=300.0, description="span of requests that a look tests")
    reference: Positive = Field(default=3600.0, description="span of requests before it that it is compared with")
    lag: Annotated[Seconds, Field(ge=0)] = Field(
        default=60.0, description="a window closes so long after its end, for what comes late"
    )
    minimum_samples: int = Field(default=30, ge=10, description="fewer requests in a window are not tested")
    follow: Positive = Field(
        default=86400.0,
        description="how long a new value is compared with its predecessor before it counts as established",
    )
    new_values_per_30_days: int = Field(
        default=30,
        ge=1,
        description="new values the budget is laid out for; when more come, each gets less, the sum stays",
    )
    calm_rounds: int = Field(
        default=3, ge=1, description="rounds in a row without an effect after which a finding is resolved"
    )
    maximum_slices: int = Field(default=200, ge=1, description="slices per signal and round, the largest first")
    maximum_followed: int = Field(default=200, ge=1, description="new values followed at a time")

    @model_validator(mode="after")
    def _names_are_unique(self) -> "DriftSettings":
        names = [signal.name for signal in self.signals]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"signals: {', '.join(twice)} is there twice; names must differ")
        return self
