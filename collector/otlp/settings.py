"""Settings of the OTLP receivers and of what is counted from requests; every bound has a safe default."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from collector.otlp.tenancy import Mismatch

MIB = 1024 * 1024


def _origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"https?://[^/\s?#]+", value):
        raise ValueError(f"{value!r} is not an origin; write scheme and host alone, 'https://app.example.com', or '*'")
    return value


Origin = Annotated[str, AfterValidator(_origin)]


class RequestMetricsSettings(BaseModel):
    """How many values a label may take before the rest is served as `other`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_models: int = Field(default=50, ge=1, description="values of `model`")
    max_tenants: int = Field(default=100, ge=1, description="values of `tenant`")
    max_operations: int = Field(default=20, ge=1, description="values of `operation`")
    max_services: int = Field(default=50, ge=1, description="values of `service`")
    max_label_characters: int = Field(default=128, ge=8, description="a longer label value is cut")


class OtlpMetricsSettings(BaseModel):
    """How many series of OTLP metrics are served, and for how long after their last point."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_series: int = Field(default=20_000, ge=0, description="series of all senders together")
    max_series_per_service: int = Field(default=5_000, ge=0, description="series of one service of a tenant")
    max_targets: int = Field(default=2_000, ge=1, description="resources of which `target_info` tells")
    max_labels: int = Field(default=32, ge=1, description="attributes of a point; one with more is refused")
    max_label_characters: int = Field(default=256, ge=8, description="a longer label value is cut")
    max_buckets: int = Field(default=200, ge=1, description="buckets of a histogram; one with more is refused")
    stale_seconds: float = Field(
        default=300.0, gt=0, description="a series that does not come for this long is served no more"
    )


class OtlpSettings(BaseModel):
    """What an export request may cost, and how spans are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_request_bytes: int = Field(
        default=16 * MIB,
        ge=1024,
        description="of a request as it arrives; exporters send 512 spans at a time, 0.1 to 1 MiB with prompts",
    )
    max_body_bytes: int = Field(default=32 * MIB, ge=1024, description="of a request decompressed")
    max_inflight_bytes: int = Field(
        default=96 * MIB, ge=1024, description="bodies being decoded or waiting for their commit, all requests together"
    )
    max_attribute_bytes: int = Field(default=MIB, ge=256, description="a longer attribute is cut, and says so")
    body_timeout_seconds: float = Field(default=30.0, gt=0, description="how long a body may take to arrive")
    commit_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="how long a request may wait for its commit; past it the exporter is told to retry",
    )
    retry_after_seconds: float = Field(default=2.0, ge=0, description="`Retry-After` of an answer under pressure")
    tenant_keys: tuple[str, ...] = Field(
        default=("tenant.id",),
        min_length=1,
        description="attributes that name the tenant, asked in this order, the span's before the resource's",
    )
    tenant_mismatch: Mismatch = Field(
        default="override",
        description="data that names another tenant than its API key is bound to gets the key's tenant (`override`), "
        "or is rejected (`reject`)",
    )
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        description="pages that may send OTLP from a browser, for example https://app.example.com; `*` is every page",
    )
    max_future_seconds: float = Field(
        default=86_400.0, ge=0, description="a span from further ahead is a broken clock, and rejected"
    )
    max_age_seconds: float = Field(
        default=10 * 365.25 * 86_400.0, gt=0, description="a span from further back is a broken clock, and rejected"
    )
    logs: Literal["genai", "traced", "all"] = Field(
        default="traced",
        description="which log records are kept: `genai` events alone, those of a trace (`traced`), or `all`",
    )
    # Metrics that come over OTLP and are served on /metrics.
    metrics: OtlpMetricsSettings = OtlpMetricsSettings()
    decode_threads: int = Field(default=1, ge=1, le=16, description="threads that decode bodies")
    # Labels of the metrics that are counted from requests.
    request_metrics: RequestMetricsSettings = RequestMetricsSettings()
