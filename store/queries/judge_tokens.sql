-- Tokens that judged scores have used since a moment, for the day's budget.
SELECT coalesce(sum(coalesce(judge_input_tokens, 0) + coalesce(judge_output_tokens, 0)), 0)::BIGINT AS tokens
FROM scores
WHERE scored_at >= $since AND judge_model IS NOT NULL
