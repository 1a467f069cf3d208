-- Log records that came over OTLP, without what went to their span's row.
CREATE TABLE log_records (
    time TIMESTAMPTZ,
    observed_time TIMESTAMPTZ,
    record_id VARCHAR,
    trace_id VARCHAR,
    span_id VARCHAR,
    severity VARCHAR,
    severity_number BIGINT,
    event_name VARCHAR,
    body VARCHAR,
    attributes VARCHAR,
    service VARCHAR,
    instance VARCHAR,
    environment VARCHAR,
    scope VARCHAR,
    tenant VARCHAR,
    commit_seq BIGINT,
    committed_at TIMESTAMPTZ
);

-- What log records say of spans, until it stands in the span's row.
CREATE TABLE span_contents (
    record_id VARCHAR,
    trace_id VARCHAR,
    span_id VARCHAR,
    response_id VARCHAR,
    tenant VARCHAR,
    time TIMESTAMPTZ,
    position BIGINT,
    mode VARCHAR,
    state VARCHAR,
    input_messages VARCHAR,
    output_messages VARCHAR,
    retrieved_documents VARCHAR,
    feature_flags VARCHAR,
    response_schema VARCHAR,
    tool_definitions VARCHAR,
    tool_arguments VARCHAR,
    tool_result VARCHAR,
    facts VARCHAR,
    commit_seq BIGINT,
    committed_at TIMESTAMPTZ
);

-- What more the tracing clients say of calls, tools and traces.
ALTER TABLE spans ADD COLUMN total_tokens BIGINT;
ALTER TABLE spans ADD COLUMN cache_creation_tokens BIGINT;
ALTER TABLE spans ADD COLUMN stream BOOLEAN;
ALTER TABLE spans ADD COLUMN tool_definitions VARCHAR;
ALTER TABLE spans ADD COLUMN tool_name VARCHAR;
ALTER TABLE spans ADD COLUMN tool_call_id VARCHAR;
ALTER TABLE spans ADD COLUMN tool_arguments VARCHAR;
ALTER TABLE spans ADD COLUMN tool_result VARCHAR;
ALTER TABLE spans ADD COLUMN tags VARCHAR;
ALTER TABLE spans ADD COLUMN metadata VARCHAR;
CREATE OR REPLACE VIEW requests AS SELECT * FROM spans WHERE is_request;

-- Between which times the spans and scores of a trace lie, in runs sorted by the hash of its id (see places.py).
CREATE TABLE span_places (trace_hash UBIGINT, first_time TIMESTAMPTZ, last_time TIMESTAMPTZ);
CREATE TABLE span_places_fresh (trace_hash UBIGINT, first_time TIMESTAMPTZ, last_time TIMESTAMPTZ);
CREATE TABLE score_places (trace_hash UBIGINT, first_time TIMESTAMPTZ, last_time TIMESTAMPTZ);
CREATE TABLE score_places_fresh (trace_hash UBIGINT, first_time TIMESTAMPTZ, last_time TIMESTAMPTZ);

-- Sums of the scores of five minutes (see score_sums.py) by evaluator, and by what the grain names of tenant and model.
CREATE TABLE score_cells (
    bucket TIMESTAMPTZ,
    grain VARCHAR,
    evaluator VARCHAR,
    tenant VARCHAR,
    model VARCHAR,
    n BIGINT,
    clusters BIGINT,
    weight DOUBLE,
    weighted DOUBLE,
    low DOUBLE,
    high DOUBLE,
    weight_low DOUBLE,
    weight_high DOUBLE,
    is_share BOOLEAN,
    centre DOUBLE,
    squares DOUBLE,
    cross_sum DOUBLE,
    cluster_weights DOUBLE
);

-- Without a key: an index over random ids is touched all over by every insert, and outgrew the memory (see
-- known_scores.py for how a score is stored once).
CREATE TABLE scores_without_key AS SELECT * FROM scores;
DROP TABLE scores;
ALTER TABLE scores_without_key RENAME TO scores;
ALTER TABLE scores ALTER COLUMN score_id SET NOT NULL;

-- Contents by zstd: half the processor time of a checkpoint and half the disk of DuckDB's own choice.  A column's
-- compression can only be said where its table is made.
CREATE TABLE spans_compressed (
    start_time TIMESTAMPTZ,
    end_time TIMESTAMPTZ,
    duration_s DOUBLE,
    trace_id VARCHAR,
    span_id VARCHAR,
    parent_span_id VARCHAR,
    name VARCHAR,
    kind VARCHAR,
    vantage VARCHAR,
    request_id VARCHAR,
    is_request BOOLEAN,
    service VARCHAR,
    service_version VARCHAR,
    instance VARCHAR,
    scope VARCHAR,
    operation VARCHAR,
    provider VARCHAR,
    request_model VARCHAR,
    response_model VARCHAR,
    response_id VARCHAR,
    tenant VARCHAR,
    user_id VARCHAR,
    session_id VARCHAR,
    prompt_name VARCHAR,
    prompt_version VARCHAR,
    deployment VARCHAR,
    environment VARCHAR,
    region VARCHAR,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_tokens BIGINT,
    reasoning_tokens BIGINT,
    cost_usd DOUBLE,
    time_to_first_token_s DOUBLE,
    queue_time_s DOUBLE,
    prefill_time_s DOUBLE,
    decode_time_s DOUBLE,
    inference_time_s DOUBLE,
    request_duration_s DOUBLE,
    finish_reason VARCHAR,
    status VARCHAR,
    status_message VARCHAR,
    error_type VARCHAR,
    response_format VARCHAR,
    response_schema VARCHAR USING COMPRESSION zstd,
    input_messages VARCHAR USING COMPRESSION zstd,
    output_messages VARCHAR USING COMPRESSION zstd,
    retrieved_documents VARCHAR USING COMPRESSION zstd,
    feature_flags VARCHAR,
    attributes VARCHAR USING COMPRESSION zstd,
    engine_span_id VARCHAR,
    engine_instance VARCHAR,
    engine_time_to_first_token_s DOUBLE,
    engine_queue_time_s DOUBLE,
    engine_prefill_time_s DOUBLE,
    engine_decode_time_s DOUBLE,
    engine_inference_time_s DOUBLE,
    engine_request_duration_s DOUBLE,
    commit_seq BIGINT,
    committed_at TIMESTAMPTZ,
    total_tokens BIGINT,
    cache_creation_tokens BIGINT,
    stream BOOLEAN,
    tool_definitions VARCHAR USING COMPRESSION zstd,
    tool_name VARCHAR,
    tool_call_id VARCHAR,
    tool_arguments VARCHAR USING COMPRESSION zstd,
    tool_result VARCHAR USING COMPRESSION zstd,
    tags VARCHAR,
    metadata VARCHAR USING COMPRESSION zstd
);
INSERT INTO spans_compressed BY NAME SELECT * FROM spans;
DROP VIEW requests;
DROP TABLE spans;
ALTER TABLE spans_compressed RENAME TO spans;
CREATE VIEW requests AS SELECT * FROM spans WHERE is_request;
