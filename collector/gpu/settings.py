"""What can be configured about GPU telemetry."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog.duration import Duration


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
