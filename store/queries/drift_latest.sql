-- A series is what is compared again in every round; its id stays the same from round to round.
SELECT
    md5(concat_ws(chr(31), signal, coalesce(slice, ''), coalesce(detector, ''), coalesce(comparison, ''))) AS drift_id,
    * EXCLUDE (evidence)
FROM drift_results
WHERE round_time >= $since
  AND ($tenants IS NULL OR list_contains($tenants::VARCHAR[], json_extract_string(slice_values, '$.tenant')))
QUALIFY row_number() OVER (
    PARTITION BY signal, slice, detector, comparison ORDER BY round_time DESC, commit_seq DESC
) = 1
ORDER BY
    CASE state WHEN 'confirmed' THEN 0 WHEN 'suspected' THEN 1 WHEN 'resolved' THEN 2 ELSE 3 END,
    signal, slice, drift_id
