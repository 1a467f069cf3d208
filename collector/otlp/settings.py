"""Settings of the OTLP receivers and of what is counted from requests; every bound has a safe default."""

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class RequestMetricsSettings(BaseModel):
    """How many values a label may take before the rest is served as `other`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_models: int = Field(default=50, ge=1)
    max_tenants: int = Field(default=100, ge=1)
    max_operations: int = Field(default=20, ge=1)
    max_services: int = Field(default=50, ge=1)
    max_label_characters: int = Field(default=128, ge=8)


class OtlpSettings(BaseModel):
    """What an export request may cost, and how spans are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # As it arrives; OTLP exporters send 512 spans at a time, 0.1 to 1 MiB with prompts.
    max_request_bytes: int = Field(default=16 * MIB, ge=1024)
    # Decompressed.
    max_body_bytes: int = Field(default=32 * MIB, ge=1024)
    # Bodies being decoded or waiting for their commit, all requests together.
    max_inflight_bytes: int = Field(default=96 * MIB, ge=1024)
    # A longer attribute is cut, and says so.
    max_attribute_bytes: int = Field(default=MIB, ge=256)
    body_timeout_seconds: float = Field(default=30.0, gt=0)
    commit_timeout_seconds: float = Field(default=30.0, gt=0)
    retry_after_seconds: float = Field(default=2.0, ge=0)
    # Asked in this order, the span's attributes before the resource's.
    tenant_keys: tuple[str, ...] = Field(default=("tenant.id",), min_length=1)
    # A span from further ahead or back is a broken clock.
    max_future_seconds: float = Field(default=86_400.0, ge=0)
    max_age_seconds: float = Field(default=10 * 365.25 * 86_400.0, gt=0)
    decode_threads: int = Field(default=1, ge=1, le=16)
    # Labels of the metrics that are counted from requests.
    request_metrics: RequestMetricsSettings = RequestMetricsSettings()
