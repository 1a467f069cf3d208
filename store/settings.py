"""Settings of the store; the defaults keep the whole process under 700 MB."""

import re

from pydantic import BaseModel, ConfigDict, Field

_UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def size_in_bytes(text: str) -> int:
    """Bytes of a size as the settings take it: `300MB`, `1.5 GiB`."""
    number, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", text).groups()  # type: ignore[union-attr]
    return int(float(number) * _UNITS[unit])


class StoreSettings(BaseModel):
    """How much the store may use, and how long an acknowledgement may wait for company."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_limit: str = Field(
        default="300MB",
        pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$",
        description="DuckDB's memory; past it DuckDB spills to disk",
    )
    threads: int = Field(default=2, ge=1, le=256, description="DuckDB's threads")
    checkpoint_threshold: str = Field(
        default="64MB",
        pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$",
        description="size of the write-ahead log at which DuckDB folds it into the file",
    )
    min_free_bytes: int | None = Field(
        default=None,
        ge=0,
        description="free disk below which nothing more is taken, beside what folding the write-ahead log needs; "
        "unless set 512 MiB, and 5 % of a smaller disk",
    )
    max_commit_rows: int = Field(
        default=50_000,
        ge=1,
        description="rows that share one commit at most; submissions that arrive while a commit runs share the next",
    )
    queue_batches: int = Field(
        default=256, ge=1, description="submissions that may wait; past it exporters are told to retry"
    )
    duplicate_window_spans: int = Field(
        default=500_000, ge=1_000, description="ids kept to drop spans that are sent twice"
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
