"""Which requests are scored by which evaluators: by policy, deterministic, with a known probability."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from evals.settings import Policy

# Where a policy's key is not a column of the request itself.
COLUMNS = {"model": ("response_model", "request_model")}


def probabilities(policies: Sequence[Policy], row: Mapping[str, Any]) -> dict[str, float]:
    """Inclusion probability of the request for each evaluator that some policy asks of it, by the evaluator's name.

    Several policies that ask for the same evaluator look at the same number of the request (see `uniform`), so the
    sample of the lower rate lies within that of the higher, and the highest rate is the probability.
    """
    found: dict[str, float] = {}
    for policy in policies:
        if matches(policy, row):
            certain = policy.always_on_errors and row.get("status") == "error"
            for use in policy.evaluators:
                found[use.name] = max(found.get(use.name, 0.0), 1.0 if certain else policy.rate)
    return found


def chosen(policies: Sequence[Policy], row: Mapping[str, Any]) -> dict[str, float]:
    """The evaluators that score this request, each with the probability that it does."""
    return {
        name: probability
        for name, probability in probabilities(policies, row).items()
        if uniform(row["trace_id"], row["span_id"], name) < probability
    }


def matches(policy: Policy, row: Mapping[str, Any]) -> bool:
    """Whether the request is one that the policy speaks of."""
    return all(_value(row, key) in values for key, values in policy.where.items())


def _value(row: Mapping[str, Any], key: str) -> Any:
    return next((row[column] for column in COLUMNS.get(key, (key,)) if row.get(column) is not None), None)


def uniform(trace_id: str, span_id: str, evaluator: str) -> float:
    """A number in [0, 1) that is the request's own for this evaluator, at any time and on any machine."""
    digest = hashlib.blake2b(f"{trace_id}\0{span_id}\0{evaluator}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
