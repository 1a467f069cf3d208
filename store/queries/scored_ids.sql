-- Which of these scores exist already.
SELECT score_id FROM scores WHERE score_id IN (SELECT unnest($ids))
