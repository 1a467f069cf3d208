-- Median time to first token by the minute, counted from the start, in which a request began, beside the worst of the engine in that minute.
WITH calls AS (
    SELECT coalesce(response_model, request_model) AS model, time_bucket(INTERVAL 1 MINUTE, start_time, $start) AS minute,
        median(coalesce(time_to_first_token_s, engine_time_to_first_token_s)) AS median_s, count(*) AS n
    FROM requests
    WHERE start_time >= $start AND start_time < $end
      AND coalesce(time_to_first_token_s, engine_time_to_first_token_s) IS NOT NULL
    GROUP BY ALL
),
engines AS (
    SELECT model, time_bucket(INTERVAL 1 MINUTE, time, $start) AS minute,
        max(requests_waiting) AS waiting, max(kv_cache_usage_ratio) AS kv_cache_usage_ratio
    FROM engine_state WHERE time >= $start AND time < $end
    GROUP BY ALL
)
SELECT c.*, e.waiting, e.kv_cache_usage_ratio
FROM calls c LEFT JOIN engines e ON e.model = c.model AND e.minute = c.minute
ORDER BY c.model, c.minute
