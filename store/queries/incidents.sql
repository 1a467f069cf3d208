SELECT * EXCLUDE (context), coalesce(epoch_us(started_at), 0) AS page_key
FROM incidents
WHERE ($tenants IS NULL OR list_contains($tenants::VARCHAR[], tenant))
  AND ($status IS NULL OR status = $status)
  AND ($alertname IS NULL OR alertname = $alertname)
  AND ($severity IS NULL OR severity = $severity)
  AND ($start IS NULL OR started_at >= $start)
  AND ($end IS NULL OR started_at < $end)
  AND ($after_key IS NULL OR coalesce(epoch_us(started_at), 0) < $after_key
       OR (coalesce(epoch_us(started_at), 0) = $after_key AND incident_id > $after_id))
ORDER BY page_key DESC, incident_id
LIMIT $limit
