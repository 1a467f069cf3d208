SELECT
    (SELECT count(*) FROM spans) AS spans,
    (SELECT count(*) FROM requests) AS requests,
    (SELECT count(*) FROM requests WHERE status = 'error') AS failed_requests,
    (SELECT count(*) FROM scores WHERE status = 'scored') AS scores,
    (SELECT count(*) FROM engine_state) AS engine_ticks,
    (SELECT count(*) FROM gpu_state) AS gpu_ticks,
    (SELECT count(*) FROM incidents) AS incidents
