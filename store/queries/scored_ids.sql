-- Which of these scores, whose subjects' times lie in a range, exist already.
SELECT score_id FROM scores
WHERE subject_time >= $first AND subject_time <= $last AND score_id IN (SELECT unnest($ids))
