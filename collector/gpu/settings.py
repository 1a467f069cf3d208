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

    enabled: Annotated[Enabled, BeforeValidator(_word)] = Field(
        default=Enabled.AUTO, description="`auto` takes a machine without a GPU as normal, `true` says so in the log"
    )
    interval: Duration = Field(
        default=1.0,
        ge=0.1,
        le=3600,
        description="time between two looks; below 100 ms a look's own cost begins to show",
    )
    deadline: Duration = Field(
        default=10.0, gt=0, le=600, description="a look that takes longer counts as hung, and the others go on"
    )
    absent_retry: Duration = Field(
        default=60.0, gt=0, description="no driver or no GPU: how often to look whether there is one now"
    )
    field_retry: Duration = Field(
        default=300.0, gt=0, description="a value that the driver or the card does not support: how often to ask again"
    )
    node: str = Field(
        default="",
        description="the `node` label; empty means this host's name; in Kubernetes set it from spec.nodeName",
    )
