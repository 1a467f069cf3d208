SELECT {value} AS value, r.end_time AS time, r.request_id, r.trace_id, r.span_id, r.session_id {dimensions}
FROM requests r
WHERE r.end_time >= $start AND r.end_time < $end AND {value} IS NOT NULL
ORDER BY r.end_time, r.span_id
