"""Settings of the scraper."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from catalog.duration import Duration
from collector.targets import Target, checked, clashes

MIB = 1024 * 1024


class TargetSettings(BaseModel):
    """One target: where it serves its metrics, and what to call it.

    The label `instance` names the target (else host:port of the URL); `engine` and `model` are told to us where the
    exposition does not say; `environment` and `node` find its requests and GPUs; others are shown, not served.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    labels: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _can_be_scraped(cls, value: str) -> str:
        checked(value)
        return value

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        checked("http://anywhere", value)
        return value

    def target(self) -> Target:
        """What it describes."""
        return checked(self.url, self.labels)


class ScrapeSettings(BaseModel):
    """What is scraped, how often, and what one scrape may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Duration = Field(default=5.0, ge=0.05, le=3600)
    timeout: Duration = Field(default=4.0, gt=0, le=3600)
    targets: Sequence[TargetSettings] = ()
    # Prometheus's files, YAML or JSON; `*` in the last part of the path.
    file_sd: Sequence[str] = ()
    file_sd_refresh: Duration = Field(default=5.0, ge=0.05)
    # Of the answer, as it arrives and decompressed.
    max_body: ByteSize = Field(default=ByteSize(16 * MIB), ge=1024)
    # vLLM serves some 400 a model; past this the scrape is refused.
    max_series: int = Field(default=20_000, ge=10)
    max_label_value: int = Field(default=8_192, ge=64)
    # How long the last good scrape is served on when a target fails: three missed rounds, unless said otherwise.
    stale_after: Duration | None = Field(default=None, gt=0)
    # Longer answers are parsed in a thread, so that others' scrapes go on; 50 kB take a millisecond.
    parse_in_thread_above: ByteSize = Field(default=ByteSize(256 * 1024), ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.timeout > self.interval:
            raise ValueError(
                f"timeout {self.timeout:g}s is longer than interval {self.interval:g}s; write a shorter one"
            )
        faults = clashes(entry.target() for entry in self.targets)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def staleness(self) -> float:
        """Seconds after which a failing target's series disappear."""
        return 3 * self.interval if self.stale_after is None else self.stale_after
