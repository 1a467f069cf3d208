"""What the demo says at the end: what came in, what drifted, what paged, and what the overload did."""

from collections.abc import Mapping, Sequence
from typing import Any

from store.reads import Reads
from store.scope import moment


def latency(reads: Reads, start: float, end: float) -> list[dict[str, Any]]:
    """Per model: the worst minute's median time to first token beside the median of all other minutes.

    `queue` says how many requests waited at most in that minute, on the engines that serve the model; None where no
    engine was scraped.
    """
    rows = reads.query("latency_by_minute", start=moment(start), end=moment(end))
    models = sorted({row["model"] for row in rows if row["model"] is not None})
    return [_of_model(model, [row for row in rows if row["model"] == model]) for model in models]


def _of_model(model: str, minutes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    worst = max(minutes, key=lambda row: row["median_s"])
    calm = sorted(row["median_s"] for row in minutes)
    return {
        "model": model,
        "worst_minute": worst["minute"].isoformat(),
        "time_to_first_token_s": {
            "median_in_worst_minute": round(worst["median_s"], 4),
            "median_of_other_minutes": round(calm[(len(calm) - 1) // 2], 4),
            "requests_in_worst_minute": worst["n"],
        },
        "peak_requests_waiting": max((row["waiting"] for row in minutes if row["waiting"] is not None), default=None),
        "peak_kv_cache_usage_ratio": max(
            (row["kv_cache_usage_ratio"] for row in minutes if row["kv_cache_usage_ratio"] is not None), default=None
        ),
    }
