"""Settings of the store; the defaults keep the whole process under 700 MB."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ByteSize, ConfigDict, Field

from catalog.duration import Duration

_UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def size_in_bytes(text: str) -> int:
    """Bytes of a size as the settings take it: `300MB`, `1.5 GiB`."""
    number, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", text).groups()  # type: ignore[union-attr]
    return int(float(number) * _UNITS[unit])


DAY = 86_400.0


def _kept(days: float, what: str) -> Duration | None:
    kept: Duration | None = Field(default=days * DAY, gt=0, description=f"how long {what} are kept; null is for ever")
    return kept


class TenantRetention(BaseModel):
    """What is kept of one tenant, where that is shorter than of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spans: Duration | None = Field(default=None, gt=0, description="its spans; as everybody's unless set")
    scores: Duration | None = Field(default=None, gt=0, description="its scores; as everybody's unless set")
    log_records: Duration | None = Field(default=None, gt=0, description="its log records; as everybody's unless set")


class RetentionSettings(BaseModel):
    """How long rows are kept, counted from their arrival."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spans: Duration | None = _kept(14, "spans and what they hold of prompts and answers")
    log_records: Duration | None = _kept(14, "log records")
    scores: Duration | None = _kept(90, "scores")
    engine_state: Duration | None = _kept(14, "ticks of the engines' state")
    gpu_state: Duration | None = _kept(7, "ticks of the GPUs' state")
    drift_results: Duration | None = _kept(90, "results of drift tests")
    incidents: Duration | None = _kept(365, "incidents")
    deployments: Duration | None = _kept(365, "deployments")
    audit_log: Duration | None = _kept(365, "entries of the audit log")
    usage: Duration | None = _kept(730, "hours of usage")
    tenants: Mapping[str, TenantRetention] = Field(
        default={}, description="shorter times by tenant: `{acme: {spans: 3d}}`"
    )
    max_bytes: ByteSize | None = Field(
        default=None,
        gt=0,
        description="size of the database past which the oldest spans, scores, log records and ticks go before their "
        "time, for example 200GiB; unless set only the disk's reserve is a bound",
    )
    every: Duration = Field(default=300.0, ge=1, description="how often to look")


class StoreSettings(BaseModel):
    """How much the store may use, and how long an acknowledgement may wait for company."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_limit: str = Field(
        default="300MB",
        pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$",
        description="DuckDB's memory; past it DuckDB spills to disk",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="DuckDB's threads for one query; unless set, half of the processors: a small commit that has to "
        "share its work costs half as much again",
    )
    checkpoint_threshold: str = Field(
        default="32MB",
        pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$",
        description="size of the write-ahead log at which it is folded into the file; commits wait meanwhile, and a "
        "restart goes through the log",
    )
    min_free_bytes: ByteSize | None = Field(
        default=None,
        ge=0,
        description="free disk below which nothing more is taken, beside what folding the write-ahead log needs; "
        "unless set 512 MiB, and 5 % of a smaller disk",
    )
    retention: RetentionSettings = RetentionSettings()
    max_commit_rows: int = Field(
        default=50_000,
        ge=1,
        description="rows that share one commit at most; submissions that arrive while a commit runs share the next",
    )
    queue_batches: int = Field(
        default=256, ge=1, description="submissions that may wait; past it exporters are told to retry"
    )
    duplicate_window_spans: int = Field(
        default=4_000_000,
        ge=1_000,
        description="spans of which it is known that they are stored, so that one sent twice is dropped; 10 bytes each",
    )
    request_window_seconds: float = Field(
        default=300.0, gt=0, description="how long the spans of one call may take to find each other"
    )
    content_window_seconds: float = Field(
        default=900.0,
        gt=0,
        description="how long what a log record says of a span may wait for it, and how old a span it may still find",
    )
    content_waiting: int = Field(
        default=100_000, ge=1, description="spans for which contents may wait; past it the oldest stay unclaimed"
    )
