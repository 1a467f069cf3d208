"""A key bound to tenants: what its data may say of the tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Mismatch = Literal["override", "reject"]

FOREIGN, MISSING = "tenant_mismatch", "tenant_missing"
REASONS: Mapping[str, str] = {
    FOREIGN: "it names a tenant that the API key is not bound to",
    MISSING: "it names no tenant, and the API key is bound to several",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The rows that the key may send, the others by reason, and how many had their tenant replaced."""

    table: pa.Table
    rejected: Mapping[str, int]  # key of REASONS
    overridden: int = 0


def bind(table: pa.Table, tenants: frozenset[str] | None, mismatch: Mismatch) -> Bound:
    """The rows of `table`, by its column `tenant`, that a key bound to `tenants` may send.

    A key of one tenant gives it to rows that name none; rows of another tenant become that tenant's (`override`) or
    are left out (`reject`).  A key of several takes only rows that name one of them.
    """
    if tenants is None or not table.num_rows:
        return Bound(table, {})
    said = table.column("tenant")
    if pa.types.is_dictionary(said.type):
        said = said.cast(said.type.value_type)
    foreign = pc.invert(pc.is_in(said, pa.array(sorted(tenants), said.type)))
    missing = pc.is_null(said)
    if len(tenants) > 1:
        # A null is in no set, so `foreign` holds the missing ones, too.
        return _kept(table, foreign, {MISSING: _count(missing)})
    own = pa.scalar(next(iter(tenants)), said.type)
    if mismatch == "override":
        overridden = _count(foreign) - _count(missing)
        return Bound(_with_tenant(table, pa.repeat(own, table.num_rows)), {}, overridden)
    kept = _kept(table, pc.and_(foreign, pc.invert(missing)), {})
    return Bound(_with_tenant(kept.table, pa.repeat(own, kept.table.num_rows)), kept.rejected)


def claimed(said: str | None, tenants: frozenset[str] | None, mismatch: Mismatch) -> tuple[str | None, str]:
    """Of one item as `bind` does for many: its tenant, and the key of REASONS why it is refused, or ''."""
    if tenants is None or said in tenants:
        return said, ""
    if len(tenants) > 1:
        return None, FOREIGN if said else MISSING
    return (None, FOREIGN) if said and mismatch == "reject" else (next(iter(tenants)), "")


def _kept(table: pa.Table, refused: pa.ChunkedArray, rejected: dict[str, int]) -> Bound:
    rejected[FOREIGN] = _count(refused) - sum(rejected.values())
    found = {reason: count for reason, count in rejected.items() if count}
    return Bound(table.filter(pc.invert(refused)) if found else table, found)


def _with_tenant(table: pa.Table, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index("tenant"), "tenant", values)


def _count(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0
