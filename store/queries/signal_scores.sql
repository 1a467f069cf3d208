-- Scores of the evaluator's newest version alone: an upgrade changes what a score means, not the answers.  The time of
-- an online score's subject is the request's end.
SELECT s.value, r.end_time AS time, r.request_id, r.trace_id, r.span_id, r.session_id {dimensions}
FROM requests r
JOIN scores s ON s.trace_id = r.trace_id AND s.span_id = r.span_id
WHERE r.end_time >= $start AND r.end_time < $end
  AND s.evaluator = $evaluator AND s.status = 'scored' AND s.value IS NOT NULL
  AND s.subject_type = 'span' AND s.source = 'online' AND s.subject_time >= $start AND s.subject_time < $end
  AND s.version IS NOT DISTINCT FROM (
    SELECT max_by(version, commit_seq) FROM scores
    WHERE evaluator = $evaluator AND source = 'online' AND subject_time >= $start
  )
ORDER BY r.end_time, r.span_id
