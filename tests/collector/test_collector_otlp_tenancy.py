"""What a key bound to tenants may send, by the column `tenant`."""

from typing import Any

import pyarrow as pa
import pytest

from collector.otlp.tenancy import bind, claimed

SAID = ["a", "b", None, "a", "c"]
CASES = {
    "unbound": (None, "reject", SAID, {}, 0),
    "one, override": ({"a"}, "override", ["a"] * 5, {}, 2),
    "one, reject": ({"a"}, "reject", ["a", "a", "a"], {"tenant_mismatch": 2}, 0),
    "several, override": ({"a", "b"}, "override", ["a", "b", "a"], {"tenant_mismatch": 1, "tenant_missing": 1}, 0),
    "several, reject": ({"a", "b"}, "reject", ["a", "b", "a"], {"tenant_mismatch": 1, "tenant_missing": 1}, 0),
    "none of them": ({"x", "y"}, "reject", [], {"tenant_mismatch": 4, "tenant_missing": 1}, 0),
}


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())], ids=["text", "dictionary"])
@pytest.mark.parametrize(("tenants", "mismatch", "kept", "rejected", "overridden"), CASES.values(), ids=CASES.keys())
def test_rows_are_kept_overridden_or_rejected(
    kind: pa.DataType,
    tenants: set[str] | None,
    mismatch: Any,
    kept: list[str],
    rejected: dict[str, int],
    overridden: int,
) -> None:
    table = pa.table({"span_id": list("12345"), "tenant": pa.array(SAID, pa.string()).cast(kind)})
    bound = bind(table, None if tenants is None else frozenset(tenants), mismatch)
    assert (bound.table["tenant"].to_pylist(), bound.rejected, bound.overridden) == (kept, rejected, overridden)


@pytest.mark.parametrize(("tenants", "mismatch", "kept", "rejected", "overridden"), CASES.values(), ids=CASES.keys())
def test_one_item_is_treated_as_many_are(
    tenants: set[str] | None, mismatch: Any, kept: list[str], rejected: dict[str, int], overridden: int
) -> None:
    results = [claimed(said, None if tenants is None else frozenset(tenants), mismatch) for said in SAID]
    assert [tenant for tenant, reason in results if not reason] == kept
    reasons = [reason for _, reason in results if reason]
    assert {reason: reasons.count(reason) for reason in reasons} == rejected


def test_no_rows_are_no_rows() -> None:
    table = pa.table({"tenant": pa.array([], pa.string())})
    assert bind(table, frozenset({"a"}), "override").table.num_rows == 0
