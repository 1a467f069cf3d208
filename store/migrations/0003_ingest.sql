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
    facts VARCHAR,
    commit_seq BIGINT,
    committed_at TIMESTAMPTZ
);
