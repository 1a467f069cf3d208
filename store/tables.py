"""The tables' columns as Arrow schemas: what the writer takes and the reader gives.

The database's own definition is in `migrations/`; a test holds the two together.  What was not said is null.
Times are microseconds UTC; durations are seconds.
"""

from types import MappingProxyType

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
FLOAT = pa.float64()
WHOLE = pa.int64()
FLAG = pa.bool_()


def _schema(*groups: tuple[pa.DataType, str]) -> pa.Schema:
    """A schema from pairs of a type and the names, space separated, of its columns."""
    return pa.schema([(name, kind) for kind, names in groups for name in names.split()])


# commit_seq and committed_at are the writer's to fill: the order in which sequential readers see rows.
SPANS = _schema(
    (TIME, "start_time end_time"),
    (FLOAT, "duration_s"),
    (TEXT, "trace_id span_id parent_span_id name kind vantage request_id"),
    (FLAG, "is_request"),
    (TEXT, "service service_version instance scope operation provider request_model response_model response_id"),
    (TEXT, "tenant user_id session_id prompt_name prompt_version deployment environment region"),
    # Cached tokens are contained in the input's, those of reasoning in the output's, whatever the client's counting.
    (WHOLE, "input_tokens output_tokens cached_tokens reasoning_tokens"),
    (FLOAT, "cost_usd"),
    # As seen from this span's vantage; the rest only engines can say.
    (FLOAT, "time_to_first_token_s queue_time_s prefill_time_s decode_time_s inference_time_s request_duration_s"),
    (TEXT, "finish_reason status status_message error_type"),
    # `response_format` is text, json_object or json_schema; `response_schema` is the JSON schema asked for.
    (TEXT, "response_format response_schema"),
    # JSON arrays in the form of OpenTelemetry GenAI: [{"role", "parts": [{"type": "text", "content"}, ...]}].
    (TEXT, "input_messages output_messages retrieved_documents feature_flags"),
    # JSON object {"span": {...}, "resource": {...}, "scope": {...}, "events": [...], "links": [...]}: the rest.
    (TEXT, "attributes"),
    # Filled by the writer on the span that stands for a request: what the engine's own span of the call says.
    (TEXT, "engine_span_id engine_instance"),
    (FLOAT, "engine_time_to_first_token_s engine_queue_time_s engine_prefill_time_s engine_decode_time_s"),
    (FLOAT, "engine_inference_time_s engine_request_duration_s"),
    (WHOLE, "commit_seq"),
    (TIME, "committed_at"),
    # `total_tokens` is what the client said; cache_creation_tokens are contained in the input's.
    (WHOLE, "total_tokens cache_creation_tokens"),
    (FLAG, "stream"),
    # JSON: definitions [{"type", "name", "description", "parameters"}, ...] of what a call may use; of a tool's own
    # span what it was called with, and its result (JSON or text).
    (TEXT, "tool_definitions tool_name tool_call_id tool_arguments tool_result"),
    # JSON array of texts, and JSON object.
    (TEXT, "tags metadata"),
)

SCORES = _schema(
    (TEXT, "score_id subject_type subject_id trace_id span_id evaluator version"),
    (FLOAT, "value"),
    (TEXT, "label explanation status error_type"),
    (WHOLE, "attempts"),
    (TEXT, "source source_key run_id"),
    (FLOAT, "sampling_probability"),
    (TEXT, "judge_model"),
    (WHOLE, "judge_input_tokens judge_output_tokens"),
    (FLOAT, "judge_cost_usd"),
    # The subject's dimensions, copied so that a score can be sliced without a join.
    (TIME, "subject_time"),
    (
        TEXT,
        "tenant service request_model operation session_id prompt_name prompt_version deployment environment region",
    ),
    (TIME, "scored_at"),
    (WHOLE, "commit_seq"),
    (TIME, "committed_at"),
)

ENGINE_STATE = _schema(
    (TIME, "time"),
    (TEXT, "target engine model rank instance environment"),
    (FLOAT, "requests_running requests_waiting kv_cache_usage_ratio"),
    # Cumulated, corrected for resets.
    (FLOAT, "prompt_tokens generation_tokens requests_finished preemptions prefix_cache_queries prefix_cache_hits"),
    (FLOAT, "time_to_first_token_s_sum time_to_first_token_s_count"),
    (FLOAT, "time_per_output_token_s_sum time_per_output_token_s_count"),
    (FLOAT, "request_duration_s_sum request_duration_s_count"),
    (FLOAT, "queue_time_s_sum queue_time_s_count prefill_time_s_sum prefill_time_s_count"),
    (FLOAT, "decode_time_s_sum decode_time_s_count inter_token_latency_s_sum inter_token_latency_s_count"),
)

GPU_STATE = _schema(
    (TIME, "time"),
    (TEXT, "gpu node gpu_model"),
    (FLOAT, "utilization_ratio memory_utilization_ratio memory_usage_bytes memory_limit_bytes"),
    (FLOAT, "power_watts power_limit_watts energy_joules temperature_celsius memory_temperature_celsius"),
    (FLOAT, "sm_clock_hertz memory_clock_hertz"),
    (FLOAT, "sm_active_ratio sm_occupancy_ratio tensor_active_ratio dram_active_ratio"),
    (FLOAT, "pcie_receive_bytes pcie_transmit_bytes nvlink_receive_bytes nvlink_transmit_bytes"),
    (FLOAT, "ecc_correctable ecc_uncorrectable xid_errors processes"),
    (TEXT, "clock_event_reasons pids pods"),  # JSON arrays
)

DRIFT_RESULTS = _schema(
    (TEXT, "result_id round_id signal slice"),
    (TEXT, "slice_values"),  # JSON object: dimension -> value
    (TEXT, "detector comparison"),  # comparison: trailing or predecessor
    (TIME, "round_time window_start window_end reference_start reference_end"),
    (TEXT, "reference"),  # what the reference is, in words
    (WHOLE, "n_current n_reference"),
    (FLOAT, "statistic p_value log_e_value q_threshold"),
    (FLOAT, "effect_size effect_low effect_high"),
    (TEXT, "effect_unit"),
    (FLOAT, "current_mean reference_mean"),
    (TEXT, "decision state"),  # decision: drift, none, too_few; state: none, suspected, confirmed, resolved
    (TIME, "since"),
    (TEXT, "evidence"),  # JSON: distributions, categories, contributing slices, worst samples
    (WHOLE, "commit_seq"),
    (TIME, "committed_at"),
)

INCIDENTS = _schema(
    (TEXT, "incident_id fingerprint alertname severity status labels annotations"),
    (TIME, "started_at ended_at received_at"),
    (TEXT, "tenant context"),  # context: JSON snapshot of what was going on
)

DEPLOYMENTS = _schema(
    (TIME, "time"),
    # `stream` is a JSON object: the dimensions within which the value was new.
    (TEXT, "service dimension value previous tenant source stream"),
)

AUDIT_LOG = _schema(
    (TIME, "time"),
    (TEXT, "actor action object outcome details"),
)

USAGE = _schema(
    (TIME, "hour"),
    (TEXT, "tenant model service"),
    (WHOLE, "requests input_tokens output_tokens"),
    (FLOAT, "cost_usd gpu_seconds energy_joules"),
)

LOG_RECORDS = _schema(
    # `observed_time` is null where the record had no time at all, and `time` is that of its arrival.
    (TIME, "time observed_time"),
    (TEXT, "record_id trace_id span_id severity"),
    (WHOLE, "severity_number"),
    # `attributes` is a JSON object {"log": {...}, "resource": {...}, "scope": {...}, ...}: the rest.
    (TEXT, "event_name body attributes service instance environment scope tenant"),
    (WHOLE, "commit_seq"),
    (TIME, "committed_at"),
)

# What log records say of spans, until it stands in the span's row.
SPAN_CONTENTS = _schema(
    (TEXT, "record_id trace_id span_id response_id tenant"),
    (TIME, "time"),
    (WHOLE, "position"),
    # mode: fill or append; state: waiting (for its span) or applied (kept for a while, see contents.py).
    (TEXT, "mode state input_messages output_messages retrieved_documents feature_flags response_schema"),
    (TEXT, "tool_definitions tool_arguments tool_result"),
    (TEXT, "facts"),  # JSON object: column of spans -> value
    (WHOLE, "commit_seq"),
    (TIME, "committed_at"),
)

TABLES: MappingProxyType[str, pa.Schema] = MappingProxyType(
    {
        "spans": SPANS,
        "scores": SCORES,
        "engine_state": ENGINE_STATE,
        "gpu_state": GPU_STATE,
        "drift_results": DRIFT_RESULTS,
        "incidents": INCIDENTS,
        "deployments": DEPLOYMENTS,
        "audit_log": AUDIT_LOG,
        "usage": USAGE,
        "log_records": LOG_RECORDS,
        "span_contents": SPAN_CONTENTS,
    }
)
