-- The last result of each finding and of each series of looks at a new value, oldest first: where the drift monitor
-- goes on after a restart, and what a report of findings is made from.
SELECT *
FROM drift_results
WHERE round_time >= $since AND round_time < $before AND (state <> 'none' OR comparison = 'predecessor')
QUALIFY row_number() OVER (
    PARTITION BY signal, slice, comparison, since ORDER BY round_time DESC, commit_seq DESC
) = 1
ORDER BY round_time, commit_seq
