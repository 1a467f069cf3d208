"""Redaction and capture of whole tables, on their way to the store."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from catalog.instruments import Instruments
from collector.redaction.capture import CONTENT_COLUMNS, attributes_without, column_without
from collector.redaction.settings import Capture, PrivacySettings
from collector.redaction.texts import Texts
from store.batch import Batch

TABLES = frozenset({"spans", "log_records", "span_contents", "scores"})
# Ids and names that rows are found and joined by.  The tenant decides who may read a row, and is never touched.
EXEMPT = frozenset(
    "trace_id span_id parent_span_id request_id record_id kind vantage tenant user_id service service_version instance "
    "scope operation provider request_model response_model response_id finish_reason status environment region mode "
    "state severity event_name error_type response_format score_id subject_type subject_id evaluator version source "
    "source_key run_id judge_model".split()
)
# Rows are grouped by these: what is found in them is replaced by its hash, so that the groups stay.
GROUPING = frozenset({"session_id", "prompt_name", "prompt_version", "deployment"})
SHARE = 2**64
T = TypeVar("T")


class Privacy:
    """What the settings ask for, done to tables.  Safe to use from several threads."""

    def __init__(self, settings: PrivacySettings, key: bytes, metrics: Instruments) -> None:
        self._settings = settings
        self.texts = Texts(settings, key)
        self._key = key
        self._metrics = metrics
        self._all_full = settings.capture is Capture.FULL and all(
            tenant.capture is Capture.FULL for tenant in settings.tenants.values()
        )
        for name in (*settings.redact, *(item.name for item in settings.custom)):
            metrics.counters.tidegauge_redactions_total.labels(name)

    def before(self, submit: Callable[[Batch], T]) -> Callable[[Batch], T]:
        """`submit`, of what is clean."""
        return lambda batch: submit(self.batch(batch))

    def batch(self, batch: Batch) -> Batch:
        """The batch without what must not reach the disk."""
        if not TABLES & batch.tables.keys():
            return batch
        tables = {name: self.table(table) if name in TABLES else table for name, table in batch.tables.items()}
        return Batch(tables, batch.cursors)

    def table(self, table: pa.Table) -> pa.Table:
        """Rows of one of TABLES, cleaned; capture first, so that what is not kept costs nothing."""
        if not self._all_full:
            table = self._captured(table)
        if self.texts.prefilter:
            table = self._redacted(table)
        return table

    def _redacted(self, table: pa.Table) -> pa.Table:
        names = [
            field.name
            for field, column in zip(table.schema, table.columns, strict=True)
            if field.type == pa.string() and field.name not in EXEMPT and column.null_count < len(column)
        ]
        if not names:
            return table
        # One pass over all columns: compiling the pattern for each would cost more than looking.
        texts = pa.chunked_array([chunk for name in names for chunk in table.column(name).chunks], pa.string())
        hits = pc.fill_null(pc.match_substring_regex(texts, self.texts.prefilter), False)
        if not pc.any(hits, min_count=0).as_py():
            return table
        found: Counter[str] = Counter()
        for index, name in enumerate(names):
            hit = hits.slice(index * table.num_rows, table.num_rows)
            if pc.any(hit, min_count=0).as_py():
                cleaned = self._cleaned(name, table.column(name), hit, found)
                table = table.set_column(table.schema.get_field_index(name), name, cleaned)
        for name, count in found.items():
            self._metrics.counters.tidegauge_redactions_total.labels(name).inc(count)
        return table

    def _cleaned(self, name: str, column: pa.ChunkedArray, hit: pa.ChunkedArray, found: Counter[str]) -> pa.Array:
        values = column.filter(hit).to_pylist()
        if name in GROUPING:
            made = [self.texts.plain(value, found, hashed=True) for value in values]
        else:
            made = [self.texts.any(value, found) for value in values]
        return pc.replace_with_mask(column.combine_chunks(), hit.combine_chunks(), pa.array(made, pa.string()))

    def _captured(self, table: pa.Table) -> pa.Table:
        traces, tenants = table.column("trace_id").to_pylist(), table.column("tenant").to_pylist()
        captures = [self.capture(tenant, trace) for tenant, trace in zip(tenants, traces, strict=True)]
        if all(capture is Capture.FULL for capture in captures):
            return table
        for capture in Capture:
            withheld = captures.count(capture)
            if withheld and capture is not Capture.FULL:
                self._metrics.counters.tidegauge_content_withheld_total.labels(capture.value).inc(withheld)
        for index, field in enumerate(table.schema):
            if field.name in CONTENT_COLUMNS or field.name in ("attributes", "facts"):
                values = table.column(index).to_pylist()
                made = [self._kept(field.name, *pair) for pair in zip(values, captures, strict=True)]
                table = table.set_column(index, field, pa.array(made, field.type))
        return table

    def _kept(self, name: str, text: str | None, capture: Capture) -> str | None:
        if capture is Capture.FULL or text is None:
            return text
        if name in ("attributes", "facts"):
            return attributes_without(text)
        return column_without(name, text, self.texts.hash if capture is Capture.HASHED else None)

    def capture(self, tenant: str | None, trace_id: str | None) -> Capture:
        """What is kept of a row: `full`, `hashed` or `off`; all rows of a trace share its draw."""
        policy = self._settings.of(tenant)
        if policy.capture is not Capture.SAMPLED:
            return policy.capture
        digest = hashlib.blake2b((trace_id or "").encode(), key=self._key, digest_size=8).digest()
        drawn = int.from_bytes(digest, "big") < policy.sample_rate * SHARE
        return Capture.FULL if drawn else Capture.OFF
