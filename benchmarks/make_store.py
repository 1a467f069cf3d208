"""A data directory as weeks of production leave it, made by SQL instead of by waiting.

    python -m benchmarks.make_store --out DIR [--spans 10000000] [--days 7] [--seed 1]

Seven tenths of the spans are requests of 50 tenants and 4 models, in sessions of a few requests; the rest are the
engine's own spans of some, and agents' spans above.  Contents are about 1.5 KB.  Every request of the last two days has
four scores; 20 engines have a tick every 5 s and 20 GPUs one a second over the last day.  Rows lie in the order in
which ingest would have written them, commits of 1,000 spans.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from store.database import Database
from store.followers import Followers
from store.settings import StoreSettings
from store.tables import SPANS

CHUNK = 500_000
CURSORS = ("evals", "evals.judge")
TENANTS, ENGINES, GPUS = 50, 20, 20
SCORE_DAYS, STATE_DAYS = 2, 1
COMMIT_SPANS = 1_000
# Bytes on disk of a span with its share of the scores, as measured, with room; a build that would not fit is refused.
BYTES_PER_SPAN = 1_400

# Words for contents: sentences drawn from these, so that texts differ but compress as text does.
WORDS = """the a of to in is that for on with as by at from it this which model cache queue request token answer
customer invoice parcel refund delivery address account password order number please could would should help thank
time window
latency server memory batch prompt system user assistant weather flight hotel recipe contract paragraph summary list
table error message retry please explain translate german french spanish short long formal friendly code function"""

SENTENCES = f"""
CREATE TEMP TABLE sentences AS
WITH words AS (SELECT string_split(regexp_replace('{WORDS}', '\\s+', ' ', 'g'), ' ') AS w)
SELECT i, list_aggregate(
    list_transform(range(18), lambda k: w[1 + (hash(i, k, $seed) % len(w))::BIGINT]), 'string_agg', ' ') || '. ' AS text
FROM range(4096) t(i), words ORDER BY i
"""

# Ten spans in a row: seven requests, the engine's spans of the first two, an agent's above the third.
PLAN = f"""
CREATE OR REPLACE TEMP TABLE plan AS
WITH numbered AS (
    SELECT i, i // 10 * 7 + CASE i % 10 WHEN 7 THEN 0 WHEN 8 THEN 1 WHEN 9 THEN 2 ELSE i % 10 END AS call,
        CASE WHEN i % 10 < 7 THEN 'client' WHEN i % 10 < 9 THEN 'engine' ELSE 'agent' END AS role
    FROM range($first, $last) t(i)
),
drawn AS (
    SELECT *, hash(call, $seed) AS dice, $start + (call * 10 / 7.0) * $step AS ended FROM numbered
),
placed AS (
    SELECT *, 0.2 + (dice % 30000) / 1000.0 AS lasted,
        -- Sessions of a few requests within twenty minutes; a session is one tenant's, and some tenants are large.
        hash((ended // 1200)::BIGINT, dice // 7 % greatest(1, (1200 / $step * 0.7 / 5)::BIGINT), $seed) AS session
    FROM drawn
)
SELECT i, call, role, dice, ended, lasted, session,
    'tenant-' || least(session % {TENANTS}, session // 1000 % {TENANTS}) AS tenant,
    'model-' || (dice // 11 % 4) AS model, md5(call || '/' || $seed) AS trace, i // {COMMIT_SPANS} + 1 AS seq,
    'engine-' || (dice // 11 % 4 + dice // 13 % 5 * 4) || ':8000' AS instance
FROM placed
"""


def _text(salt: int, sentences: int) -> str:
    parts = " || ".join(f"s[1 + (hash(p.i, {salt + k}) % 4096)::BIGINT]" for k in range(sentences))
    return f"""'[{{"role":"user","parts":[{{"type":"text","content":"' || p.i || ' ' || {parts} || '"}}]}}]'"""


# Column of `spans` -> expression over the plan; the rest is null.
SPAN = {
    "start_time": "to_timestamp(ended - lasted)",
    "end_time": "to_timestamp(ended)",
    "duration_s": "lasted",
    "trace_id": "trace",
    "span_id": "left(md5(i || '+' || $seed), 16)",
    "parent_span_id": "CASE role WHEN 'engine' THEN left(md5((i - 7) || '+' || $seed), 16) END",
    "name": "CASE role WHEN 'engine' THEN 'llm_request' WHEN 'agent' THEN 'agent' ELSE 'chat ' || model END",
    "kind": "CASE role WHEN 'agent' THEN 'agent' ELSE 'llm' END",
    "vantage": "CASE role WHEN 'engine' THEN 'engine' ELSE 'client' END",
    "request_id": "CASE WHEN role <> 'agent' THEN trace || ':' || call END",
    "is_request": "CASE WHEN role <> 'agent' THEN role = 'client' END",
    "service": "CASE role WHEN 'engine' THEN 'vllm' ELSE 'service-' || (session // 3 % 5) END",
    "instance": "CASE role WHEN 'engine' THEN instance END",
    "operation": "CASE WHEN role <> 'agent' THEN 'chat' END",
    "provider": "CASE WHEN role <> 'agent' THEN 'vllm' END",
    "request_model": "CASE WHEN role <> 'agent' THEN model END",
    "response_model": "CASE WHEN role <> 'agent' THEN model END",
    "response_id": "CASE WHEN role <> 'agent' THEN 'chatcmpl-' || left(trace, 24) END",
    "tenant": "CASE WHEN role <> 'engine' THEN tenant END",
    "session_id": "CASE WHEN role <> 'engine' THEN 's-' || hex(session) END",
    "prompt_name": "CASE role WHEN 'client' THEN 'answer' END",
    "prompt_version": "CASE role WHEN 'client' THEN 'v' || (ended // 172800)::BIGINT % 5 END",
    "environment": "'production'",
    "input_tokens": "CASE WHEN role <> 'agent' THEN dice // 17 % 2000 END",
    "output_tokens": "CASE WHEN role <> 'agent' THEN dice // 19 % 500 END",
    "cost_usd": "CASE role WHEN 'client' THEN (dice // 19 % 500) * 1e-5 END",
    "time_to_first_token_s": "CASE WHEN role <> 'agent' THEN lasted * 0.2 END",
    "queue_time_s": "CASE role WHEN 'engine' THEN lasted * 0.05 END",
    "finish_reason": "CASE WHEN role <> 'agent' THEN 'stop' END",
    "status": "CASE WHEN dice // 23 % 100 = 0 THEN 'error' ELSE 'ok' END",
    "error_type": "CASE WHEN dice // 23 % 100 = 0 THEN 'timeout' END",
    "input_messages": f"CASE WHEN role = 'client' THEN {_text(0, 6)} END",
    "output_messages": f"CASE WHEN role = 'client' THEN {_text(100, 3)} END",
    "attributes": """'{"span":{"server.port":8000,"n":' || dice || '},"resource":{"host.name":"node-' || dice % 40
        || '","telemetry.sdk.language":"python"},"scope":{"name":"benchmarks"}}'""",
    "engine_instance": "CASE WHEN role = 'client' AND i % 10 < 2 THEN instance END",
    "engine_time_to_first_token_s": "CASE WHEN role = 'client' AND i % 10 < 2 THEN lasted * 0.18 END",
    "commit_seq": "seq",
    "committed_at": "to_timestamp(ended + 0.1)",
}

SCORES = """
INSERT INTO scores BY NAME
SELECT md5(trace || evaluator) AS score_id, 'span' AS subject_type, trace || ':' || span_id AS subject_id,
    trace AS trace_id, span_id, evaluator, '1' AS version,
    CASE WHEN evaluator = 'length' THEN (dice // 29 % 400)::DOUBLE ELSE (hash(i, evaluator) % 20 = 0)::INT::DOUBLE END
        AS value,
    'scored' AS status, 1 AS attempts, 'online' AS source,
    CASE WHEN evaluator = 'judge' THEN 0.25 ELSE 1.0 END AS sampling_probability, to_timestamp(ended) AS subject_time,
    tenant, 'service-' || (session // 3 % 5) AS service, model AS request_model, 'chat' AS operation,
    's-' || hex(session) AS session_id, 'answer' AS prompt_name, 'production' AS environment,
    to_timestamp(ended + 15) AS scored_at, seq AS commit_seq, to_timestamp(ended + 15) AS committed_at
FROM (SELECT *, left(md5(i || '+' || $seed), 16) AS span_id FROM plan WHERE role = 'client' AND ended >= $scored) p,
    (VALUES ('json_validity'), ('refusal'), ('length'), ('judge')) e(evaluator)
ORDER BY i, evaluator
"""

ENGINE_STATE = f"""
INSERT INTO engine_state BY NAME
SELECT to_timestamp(t) AS time, 'engine-' || n || ':8000' AS target, 'vllm' AS engine, 'model-' || n % 4 AS model,
    '0' AS rank, 'engine-' || n || ':8000' AS instance, 'production' AS environment,
    (hash(t, n) % 64)::DOUBLE AS requests_running, (hash(n, t) % 9)::DOUBLE AS requests_waiting,
    (hash(t, n) % 100) / 100.0 AS kv_cache_usage_ratio, (t - $from) * 900.0 AS prompt_tokens,
    (t - $from) * 300.0 AS generation_tokens, (t - $from) * 1.0 AS requests_finished, 0.0 AS preemptions
FROM range($from, $until, 5) a(t), range({ENGINES}) b(n) ORDER BY t, n
"""

GPU_STATE = f"""
INSERT INTO gpu_state BY NAME
SELECT to_timestamp(t) AS time, 'GPU-' || n AS gpu, 'engine-' || n AS node, 'H100' AS gpu_model,
    (hash(t, n) % 100) / 100.0 AS utilization_ratio, (hash(n, t) % 80) * 1e9 AS memory_usage_bytes,
    8e10 AS memory_limit_bytes, 300.0 + hash(t, n) % 400 AS power_watts, (t - $from) * 500.0 AS energy_joules,
    40.0 + hash(t, n) % 40 AS temperature_celsius, '[]' AS clock_event_reasons, '[]' AS pids
FROM range($from, $until) a(t), range({GPUS}) b(n) ORDER BY t, n
"""


@dataclass(frozen=True)
class Shape:
    """How much to make; `until` is the end of the newest request, unix seconds."""

    spans: int
    until: float
    days: float = 7.0
    seed: int = 1

    @property
    def start(self) -> float:
        return self.until - self.days * 86400.0

    @property
    def step(self) -> float:
        """Seconds from one span to the next."""
        return self.days * 86400.0 / self.spans


def make(directory: Path, shape: Shape, said: Callable[[str], None]) -> None:
    """Fills an empty directory.  Raises ValueError where the disk has no room for it."""
    directory.mkdir(parents=True, exist_ok=True)
    needed, free = shape.spans * BYTES_PER_SPAN, shutil.disk_usage(directory).free
    if needed * 1.5 > free:
        raise ValueError(f"{shape.spans} spans take about {needed / 1e9:.0f} GB, and only {free / 1e9:.0f} GB are free")
    database = Database(directory, StoreSettings(memory_limit="4GB", checkpoint_threshold="1GB"))
    try:
        _fill(database.cursor(), shape, said)
        # A running service has done this long ago.
        while Followers(database).follow(60):
            pass
    finally:
        database.close()


def _fill(connection: duckdb.DuckDBPyConnection, shape: Shape, said: Callable[[str], None]) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    _run(connection, SENTENCES, seed=shape.seed)
    connection.execute("SET VARIABLE pool = (SELECT list(text ORDER BY i) FROM sentences)")
    columns = ", ".join(f"{SPAN[name]} AS {name}" for name in SPANS.names if name in SPAN)
    spans = f"INSERT INTO spans BY NAME SELECT {columns} FROM plan p, (SELECT getvariable('pool') AS s) ORDER BY p.i"
    scored = shape.until - SCORE_DAYS * 86400.0
    for first in range(0, shape.spans, CHUNK):
        last = min(first + CHUNK, shape.spans)
        _run(connection, PLAN, first=first, last=last, seed=shape.seed, start=shape.start, step=shape.step)
        _run(connection, spans, seed=shape.seed)
        _run(connection, SCORES, seed=shape.seed, scored=scored)
        connection.execute("CHECKPOINT")
        said(f"{last:,} of {shape.spans:,} spans")
    state = {"from": int(shape.until - STATE_DAYS * 86400), "until": int(shape.until)}
    _run(connection, ENGINE_STATE, **state)
    _run(connection, GPU_STATE, **state)
    # Sequential readers go on at the end: this is history, not work to do.
    for name in CURSORS:
        connection.execute("INSERT INTO cursors SELECT ?, max(commit_seq) FROM spans", [name])
    connection.execute("CHECKPOINT")


def _run(connection: duckdb.DuckDBPyConnection, sql: str, **parameters: float) -> None:
    connection.execute(sql, {name: value for name, value in parameters.items() if f"${name}" in sql})


def main() -> None:
    """Reads the command line and makes the directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty or new data directory")
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.perf_counter()
    make(args.out, Shape(args.spans, time.time(), args.days, args.seed), print)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
