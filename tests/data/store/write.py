"""Writes `schema-N.duckdb.xz` for the schema of this release: run once, when the schema is new."""

import lzma
import tempfile
from pathlib import Path

from store.database import FILE, migrations
from store.settings import StoreSettings
from tests.store_kit import Store, span

with tempfile.TemporaryDirectory() as directory:
    store = Store(Path(directory), StoreSettings())
    store.put(
        "spans",
        span("client", tenant="bank", request_model="m", output_tokens=7),
        span("engine", at=0.1, lasts=0.5, parent_span_id="client", vantage="engine", queue_time_s=0.2),
    )
    store.put("scores", {"score_id": "s", "evaluator": "refusal", "value": 1.0, "status": "scored"}, evals=1)
    store.close()
    target = Path(__file__).parent / f"schema-{migrations()[-1][0]}.duckdb.xz"
    target.write_bytes(lzma.compress((Path(directory) / FILE).read_bytes(), preset=9))
    print(target.name, target.stat().st_size)
