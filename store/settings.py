"""Settings of the store; the defaults keep the whole process under 700 MB."""

from pydantic import BaseModel, ConfigDict, Field


class StoreSettings(BaseModel):
    """How much the store may use, and how long an acknowledgement may wait for company."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_limit: str = Field(default="300MB", pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$")
    threads: int = Field(default=2, ge=1, le=256)
    checkpoint_threshold: str = Field(default="64MB", pattern=r"^\d+(\.\d+)?\s*(KB|MB|GB|KiB|MiB|GiB)$")
    # Submissions that arrive while a commit runs share the next one, so there is no need to wait when idle.
    max_commit_rows: int = Field(default=50_000, ge=1)
    queue_batches: int = Field(default=256, ge=1)
    # Retries of an export come within minutes: this many ids are enough to drop doubles.
    duplicate_window_spans: int = Field(default=500_000, ge=1_000)
    # How long the spans of one call may take to find each other.
    request_window_seconds: float = Field(default=300.0, gt=0)
