"""Settings of the scraper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, field_validator, model_validator

from catalog.duration import Duration, seconds
from collector.discovery.relabel import RelabelSettings
from collector.discovery.settings import (
    DnsDiscoverySettings,
    HttpDiscoverySettings,
    KubernetesDiscoverySettings,
    ShardSettings,
)
from collector.targets import Target, checked, clashes

MIB = 1024 * 1024


class TargetSettings(BaseModel):
    """One target: where it serves its metrics, and what to call it.

    The label `instance` names the target (else host:port of the URL); `engine` and `model` are told to us where the
    exposition does not say; `environment` and `node` find its requests and GPUs; others are shown, not served.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="where it serves its metrics")
    labels: Mapping[str, str] = Field(
        default_factory=dict,
        description="`instance` names the target (else host:port of the URL); `engine` and `model` where it is silent; "
        "`environment` and `node` find its requests and GPUs",
    )
    bearer_token: SecretStr | None = Field(
        default=None, description="for engines that want a key for /metrics too, as llama-server does"
    )
    bearer_token_file: Path | None = Field(default=None, description="the same in a file, read at the start; it wins")

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

    @field_validator("bearer_token_file")
    @classmethod
    def _can_be_read(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                value.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"'{value}' cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return value

    def target(self) -> Target:
        """What it describes."""
        token = self.bearer_token.get_secret_value() if self.bearer_token else ""
        if self.bearer_token_file is not None:
            token = self.bearer_token_file.read_text().strip()
        return checked(self.url, self.labels, token)


class ScrapeSettings(BaseModel):
    """What is scraped, how often, and what one scrape may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: Duration = Field(default=5.0, ge=0.05, le=3600, description="time between two scrapes of a target")
    timeout: Duration = Field(
        default=4.0,
        gt=0,
        le=3600,
        description="how long a scrape may take; four fifths of the interval unless said otherwise",
    )
    targets: Sequence[TargetSettings] = Field(default=(), description="what is scraped")
    file_sd: Sequence[str] = Field(
        default=(), description="Prometheus's files of targets, YAML or JSON; `*` in the last part of the path"
    )
    file_sd_refresh: Duration = Field(
        default=5.0, ge=0.05, description="how often they are looked at, and what the other sources found is followed"
    )
    http_sd: Sequence[HttpDiscoverySettings] = Field(default=(), description="URLs that answer with targets")
    dns_sd: Sequence[DnsDiscoverySettings] = Field(default=(), description="names whose records are targets")
    kubernetes_sd: Sequence[KubernetesDiscoverySettings] = Field(
        default=(), description="pods or endpoints of Kubernetes; `[{}]` within a pod"
    )
    relabel_configs: Sequence[RelabelSettings] = Field(
        default=(), description="Prometheus's relabelling, of the targets of all sources"
    )
    shard: ShardSettings = Field(default=ShardSettings(), description="this collector's part of the fleet")
    max_body: ByteSize = Field(
        default=ByteSize(16 * MIB), ge=1024, description="of the answer, as it arrives and decompressed"
    )
    max_series: int = Field(
        default=10_000,
        ge=10,
        description="of one target, and how many new ones it may bring an hour; vLLM serves some 400 a model; past "
        "this the scrape is refused",
    )
    max_label_value: int = Field(
        default=8_192, ge=64, description="characters of a label's value; past this the scrape is refused"
    )
    stale_after: Duration | None = Field(
        default=None,
        gt=0,
        description="how long a failing target's last good scrape is served on; three intervals unless said otherwise",
    )
    parse_in_thread_above: ByteSize = Field(
        default=ByteSize(32 * 1024),
        ge=0,
        description="longer answers are parsed in a thread, so that others' scrapes go on",
    )

    @model_validator(mode="before")
    @classmethod
    def _timeout_follows_interval(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "interval" not in given or "timeout" in given:
            return given
        try:
            return {**given, "timeout": 0.8 * seconds(given["interval"])}
        except ValueError:
            return given  # the interval's own fault will be told

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
