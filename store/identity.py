"""Ids that make a row known: what is sent or computed again has the same one, and is stored once."""

import hashlib


def score_id(
    subject_type: str, subject_id: str, evaluator: str, version: str, source: str, source_key: str = "", run: str = ""
) -> str:
    """The score's identity: scored again, the same subject has the same one, and the store drops the double."""
    parts = (subject_type, subject_id, evaluator, version, source, source_key, run)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
