SELECT * FROM gpu_state
WHERE time >= $start AND time <= $end AND ($nodes IS NULL OR list_contains($nodes::VARCHAR[], node))
ORDER BY node, time, gpu
