"""What is taken out of content before anything is stored."""

from enum import StrEnum
from typing import Literal, Self

import re2
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DetectorName = Literal["secret", "card", "iban", "email", "phone", "ip"]


class Capture(StrEnum):
    """How much of prompts, answers and documents is kept."""

    FULL = "full"
    SAMPLED = "sampled"  # of a share of the traces, and nothing of the others
    HASHED = "hashed"  # who said how much, and whether twice the same
    OFF = "off"


class CustomPattern(BaseModel):
    """A pattern of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="of the placeholder: `ticket` gives `[TICKET]`")
    pattern: str = Field(
        min_length=1, max_length=1000, description="RE2; the first group is replaced, or all where there is none"
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            compiled = re2.compile(value)
        except re2.error as error:
            raise ValueError(f"not a pattern of RE2: {error}") from None
        if compiled.search("") is not None:
            raise ValueError("it matches the empty text, and would be found everywhere")
        return value


class TenantPrivacy(BaseModel):
    """What one tenant wants kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    capture: Capture = Field(description="`full`, `sampled`, `hashed` or `off`")
    sample_rate: float = Field(default=0.1, ge=0, le=1, description="share of traces whose content `sampled` keeps")

    @field_validator("capture", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return _off(value)


class PrivacySettings(BaseModel):
    """Redaction and capture of content; both happen before anything is stored or recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    redact: tuple[DetectorName, ...] = Field(
        default=("secret", "card", "iban"),
        description="what is replaced by a placeholder: `secret`, `card`, `iban`, `email`, `phone`, `ip`",
    )
    custom: tuple[CustomPattern, ...] = Field(default=(), max_length=50, description="patterns of your own")
    keep_hash_of: tuple[str, ...] = Field(
        default=(),
        description="detectors whose placeholder carries a keyed hash, the same for the same text: `[EMAIL:1f…]`",
    )
    capture: Capture = Field(default=Capture.FULL, description="of prompts, answers and documents: see `tenants`")
    sample_rate: float = Field(default=0.1, ge=0, le=1, description="share of traces whose content `sampled` keeps")
    tenants: dict[str, TenantPrivacy] = Field(
        default_factory=dict, description="capture by tenant: `{acme: {capture: off}}`"
    )

    @field_validator("capture", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return _off(value)

    @model_validator(mode="after")
    def _known(self) -> Self:
        custom = [pattern.name for pattern in self.custom]
        if len({*custom, *self.redact}) != len(custom) + len(set(self.redact)):
            raise ValueError("custom: two patterns have the same name, or a detector's")
        unknown = set(self.keep_hash_of) - {*custom, *self.redact}
        if unknown:
            raise ValueError(f"keep_hash_of: {', '.join(sorted(unknown))} is neither in redact nor in custom")
        return self

    def of(self, tenant: str | None) -> TenantPrivacy:
        """What holds for a tenant."""
        default = TenantPrivacy(capture=self.capture, sample_rate=self.sample_rate)
        return self.tenants.get(tenant, default) if tenant is not None else default


def _off(value: object) -> object:
    """YAML reads a bare `off` as false."""
    return Capture.OFF if value is False else value
