SELECT trace_id, span_id, start_time, end_time, coalesce(response_model, request_model) AS request_model, tenant,
    service, operation, session_id, prompt_name, prompt_version, deployment, environment, region
FROM spans
WHERE {of_trace} AND ($span IS NULL OR span_id = $span)
  AND ($tenants IS NULL OR list_contains($tenants::VARCHAR[], tenant))
ORDER BY coalesce(is_request, false) DESC, start_time
LIMIT 1
