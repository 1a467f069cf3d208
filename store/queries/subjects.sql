-- What scores can be about: spans of these traces, and spans that got these responses; the request's own span last.
SELECT trace_id, span_id, response_id, start_time, end_time, coalesce(response_model, request_model) AS request_model,
    tenant, service, operation, session_id, prompt_name, prompt_version, deployment, environment, region
FROM spans
WHERE start_time >= $first AND start_time <= $last
  AND (trace_id IN (SELECT unnest($traces::VARCHAR[])) OR response_id IN (SELECT unnest($responses::VARCHAR[])))
ORDER BY coalesce(is_request, false), start_time
