-- What is stored of a service, a tenant or a trace, as far as the asker may see it; null filters are none.
SELECT count(*) AS spans,
    count(*) FILTER (WHERE is_request) AS requests,
    count(*) FILTER (WHERE tenant IS NULL) AS without_tenant,
    max(start_time) AS latest,
    arg_max(trace_id, start_time) AS latest_trace
FROM spans
WHERE ($service::VARCHAR IS NULL OR service = $service)
    AND ($tenant::VARCHAR IS NULL OR tenant = $tenant)
    AND ($trace::VARCHAR IS NULL OR trace_id = $trace)
    AND ($tenants::VARCHAR[] IS NULL OR tenant IN (SELECT unnest($tenants::VARCHAR[])))
    AND start_time >= $since
