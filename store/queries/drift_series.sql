WITH named AS (
    SELECT
        md5(concat_ws(chr(31), signal, coalesce(slice, ''), coalesce(detector, ''), coalesce(comparison, '')))
            AS drift_id,
        *
    FROM drift_results
    WHERE ($tenants IS NULL OR list_contains($tenants::VARCHAR[], json_extract_string(slice_values, '$.tenant')))
)
SELECT * FROM named
WHERE drift_id = $id OR drift_id IN (SELECT drift_id FROM named WHERE result_id = $id)
ORDER BY round_time DESC, commit_seq DESC
LIMIT $limit
