"""The monitor over the real store: values in, results and deployments out, and a restart in between."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from evals.drift.findings import findings
from evals.drift.monitor import DriftMonitor
from evals.drift.settings import DriftSettings
from store.scope import moment
from tests.store_kit import START, Store, span

RECORDING = Path(__file__).parents[1] / "data" / "drift" / "recording.parquet"


def put_recording(store: Store) -> None:
    table = parquet.read_table(RECORDING).to_pylist()
    spans, scores = [], []
    for index, row in enumerate(table):
        dimensions = {name: row[name] for name in ("tenant", "service", "prompt_name", "prompt_version", "session_id")}
        trace = f"t{index}"
        spans.append(
            span(
                f"s{index}", trace=trace, at=row["seconds"] - 1.0, request_model=row["model"],
                output_tokens=row["output_tokens"], **dimensions,
            )
        )  # fmt: skip
        if row["refusal"] is not None:
            scores.append({
                "score_id": f"c{index}", "subject_type": "span", "subject_id": f"s{index}", "trace_id": trace,
                "span_id": f"s{index}", "evaluator": "refusal", "version": "1", "value": row["refusal"],
                "status": "scored", "source": "online", "subject_time": moment(START + row["seconds"]), **dimensions,
            })  # fmt: skip
    store.put("spans", *spans)
    store.put("scores", *scores)


def monitor(store: Store) -> DriftMonitor:
    return DriftMonitor(
        DriftSettings(), store.reads, store.writer, store.clock, store.metrics, np.random.default_rng(0), START
    )


async def test_the_recording_is_read_from_the_store_and_its_finding_outlives_a_restart(store: Store) -> None:
    put_recording(store)
    drift = monitor(store)
    for number in range(1, 10):
        await drift.step(START + 60 * number)
    store.reopen()
    drift = monitor(store)
    for number in range(10, 19):
        await drift.step(START + 60 * number)
    stored = store.reads.query("drift_memory", since=moment(START), before=moment(START + 9999))
    for seen in (findings(drift.current()), findings(stored)):
        assert [(one["slice"], one["peak"], one["state"]) for one in seen] == [
            ({"tenant": "bank", "prompt_name": "support", "prompt_version": "2"}, "confirmed", "resolved")
        ]
    looks = "SELECT count(*) FROM drift_results WHERE comparison = 'predecessor' AND state = 'confirmed'"
    assert 3 <= store.sql(looks)[0][0] <= 6
    deployed = (
        "SELECT value, previous FROM deployments WHERE dimension = 'prompt_version' AND tenant = 'bank' ORDER BY time"
    )
    assert store.sql(deployed)[-1] == ("2", "1")
