-- What the request metrics count, without content; whole commits, as `pending_requests`.
SELECT commit_seq, response_model, request_model, tenant, operation, service, status, duration_s,
    time_to_first_token_s, input_tokens, output_tokens
FROM requests
WHERE commit_seq > $after AND committed_at <= $settled
ORDER BY commit_seq
