"""Settings of the ways in which targets are found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from catalog.duration import Duration


def _http(value: str | None) -> str | None:
    parts = urlsplit(value or "http://unset")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is no URL; write for example 'http://inventory:8080/targets'")
    return value


def secret(given: SecretStr | None, file: Path | None) -> str:
    """The secret, from the file where there is one, read anew each time since tokens are renewed.  Raises OSError."""
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return given.get_secret_value() if given else ""


class HttpDiscoverySettings(BaseModel):
    """A URL that answers with targets, in Prometheus's form; its last good answer stays in use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="what is asked with GET; it answers 200 with a JSON list of `targets` and `labels`")
    refresh: Duration = Field(default=60.0, ge=0.05, description="how often")
    timeout: Duration = Field(default=10.0, gt=0, le=600, description="how long the answer may take")
    bearer_token: SecretStr | None = Field(default=None, description="sent as `Authorization: Bearer`")
    bearer_token_file: Path | None = Field(default=None, description="the same in a file, read each time; it wins")
    headers: Mapping[str, SecretStr] = Field(default_factory=dict, description="sent along, by name")

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        _http(value)
        return value

    def token(self) -> str:
        """The bearer token, or ''."""
        return secret(self.bearer_token, self.bearer_token_file)


class DnsDiscoverySettings(BaseModel):
    """Names whose records are targets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: Sequence[str] = Field(min_length=1, description="whole names; search domains are not tried")
    type: Literal["A", "AAAA", "SRV"] = Field(default="SRV", description="of the records; SRV has the port in it")
    port: int | None = Field(default=None, ge=1, le=65535, description="of the targets, for A and AAAA")
    refresh: Duration = Field(default=30.0, ge=0.05, description="how often they are looked up")
    timeout: Duration = Field(default=10.0, gt=0, le=600, description="how long the answer may take")

    @model_validator(mode="after")
    def _has_port(self) -> Self:
        if self.type != "SRV" and self.port is None:
            raise ValueError(f"port is missing; {self.type} records have none")
        return self


class KubernetesDiscoverySettings(BaseModel):
    """Pods or endpoints of a Kubernetes cluster, followed by a watch of its API.

    Within a pod nothing has to be set: the service account is used.  It has to be allowed to list and watch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["pod", "endpoints"] = Field(default="pod", description="what becomes a target, for each of its ports")
    namespaces: Sequence[str] = Field(default=(), description="only these; all unless set")
    label_selector: str = Field(default="", description="only what has these labels, for example `app=vllm`")
    annotations: bool = Field(
        default=True,
        description="take only pods with the annotation `prometheus.io/scrape: true`, go by `prometheus.io/port`, "
        "`path` and `scheme`, and set the labels `namespace`, `pod` and `node`; false: relabelling does it",
    )
    api_server: str | None = Field(default=None, description="URL of the API; the cluster's own within a pod")
    bearer_token: SecretStr | None = Field(default=None, description="for the API")
    bearer_token_file: Path | None = Field(
        default=None, description="the same in a file, read each time; the service account's within a pod"
    )
    ca_file: Path | None = Field(
        default=None, description="certificate authority of the API; the service account's within a pod"
    )

    @field_validator("api_server")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        return _http(value)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.role == "endpoints" and self.annotations and "annotations" in self.model_fields_set:
            raise ValueError("annotations are those of pods; with role endpoints write relabel_configs")
        return self


class ShardSettings(BaseModel):
    """Which part of the fleet this collector scrapes, by a hash of the target's address.

    Collectors with the same targets and count, and each index from 0 on once, scrape each target exactly once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(default=0, ge=0, description="which one this is, from 0")
    count: int = Field(default=1, ge=1, le=10_000, description="how many there are")

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"index {self.index} is not below count {self.count}; they are counted from 0")
        return self
