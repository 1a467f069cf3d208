"""Where metrics are written to, and what may wait for it."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from catalog.duration import Duration

MIB = 1024 * 1024


class RemoteWriteSettings(BaseModel):
    """One endpoint of Prometheus remote write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="for example http://mimir:9009/api/v1/push")
    name: str = Field(
        default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="label of its metrics; the URL's host unless set"
    )
    protocol: Literal["auto", "1.0", "2.0"] = Field(
        default="auto", description="`auto`: 2.0 where the receiver says that it takes it, else 1.0"
    )
    interval: Duration = Field(default=15.0, gt=0, description="between two samples of a series")
    timeout: Duration = Field(default=30.0, gt=0, description="of one request")
    labels: dict[str, str] = Field(
        default_factory=lambda: {"job": "tidegauge"}, description="added to each series that has none of that name"
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="sent with each request, for example X-Scope-OrgID"
    )
    bearer_token: SecretStr | None = Field(default=None, description="sent as Authorization: Bearer")
    bearer_token_file: Path | None = Field(default=None, description="the same, read from a file at each request")
    username: str | None = Field(default=None, description="of Basic authentication")
    password: SecretStr | None = Field(default=None, description="of Basic authentication")
    max_queue_bytes: int = Field(
        default=512 * MIB, ge=MIB, description="on disk, waiting for the endpoint; past it the oldest samples go"
    )
    max_samples: int = Field(default=5_000, ge=1, le=100_000, description="in one request")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not an http(s) URL")
        if parts.username or parts.password:
            raise ValueError("put credentials into username and password, not into the URL")
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        ways = [self.bearer_token is not None, self.bearer_token_file is not None, self.username is not None]
        if sum(ways) > 1:
            raise ValueError("give one of bearer_token, bearer_token_file and username")
        return self

    def endpoint(self) -> str:
        """The value of the label `endpoint`."""
        return self.name or urlsplit(self.url).netloc
