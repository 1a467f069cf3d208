-- The last result of each signal, slice and comparison: where the drift monitor goes on after a restart.
SELECT *
FROM drift_results
WHERE round_time >= $since AND round_time < $before
QUALIFY row_number() OVER (PARTITION BY signal, slice, comparison ORDER BY round_time DESC, commit_seq DESC) = 1
