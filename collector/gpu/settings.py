"""What can be configured about GPU telemetry."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: object) -> object:
    """A duration such as "500ms", "1s" or "5m" in seconds; numbers are seconds already."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is no duration; write '1s', '500ms' or '5m'")
    return float(match[1]) * UNITS[match[2] or "s"]


Duration = Annotated[float, BeforeValidator(seconds)]


class Enabled(StrEnum):
    """Whether GPUs are looked at: `auto` takes a machine without any as normal, `true` says so in the log."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


def _word(value: object) -> object:
    # YAML makes booleans of the bare words.
    return str(value).lower() if isinstance(value, bool) else value


class GpuSettings(BaseModel):
    """The `gpu` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: Annotated[Enabled, BeforeValidator(_word)] = Enabled.AUTO
    # Below 100 ms GPM's two samples lie too close together, and a look's own cost (about 5 ms) begins to show.
    interval: Duration = Field(1.0, ge=0.1, le=3600)
    # A driver in trouble may not answer for minutes; past this a look counts as hung and the others go on.
    deadline: Duration = Field(10.0, gt=0, le=600)
    # No driver or no GPU: how often to look whether there is one now.
    absent_retry: Duration = Field(60.0, gt=0)
    # A value that the driver or the card does not support: how often to ask again.
    field_retry: Duration = Field(300.0, gt=0)
    # The `node` label; empty means this host's name.  In Kubernetes set it from spec.nodeName.
    node: str = ""
