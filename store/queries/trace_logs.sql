-- Log records of a trace around its spans, oldest first; one that names no tenant belongs to those who see the trace.
SELECT time, span_id, severity, event_name, body, attributes, service, scope, tenant
FROM log_records
WHERE trace_id = $trace AND time BETWEEN $start AND $end
  AND ($tenants IS NULL OR tenant IS NULL OR list_contains($tenants::VARCHAR[], tenant))
ORDER BY time, record_id
LIMIT $limit
