"""The client's histogram behind each latency objective."""

HISTOGRAM_OF = {
    "time_to_first_token": "gen_ai_client_time_to_first_token_seconds",
    "duration": "gen_ai_client_operation_duration_seconds",
}
