-- Whole commits in order, so that a reader's position is a commit's number.
WITH last AS (
    SELECT max(commit_seq) AS seq FROM (
        SELECT commit_seq FROM requests
        WHERE commit_seq > $after AND committed_at <= $settled
        ORDER BY commit_seq LIMIT $limit
    )
)
SELECT r.* FROM requests r, last
WHERE r.commit_seq > $after AND r.commit_seq <= last.seq AND r.committed_at <= $settled
ORDER BY r.commit_seq, r.start_time, r.span_id
