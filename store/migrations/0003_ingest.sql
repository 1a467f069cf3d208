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
CREATE TABLE score_places (trace_hash UBIGINT, first_time TIMESTAMPTZ, last_time TIMESTAMPTZ);

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
