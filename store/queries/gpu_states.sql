SELECT * FROM gpu_state
WHERE time >= $start AND time <= $end AND ($node IS NULL OR node = $node)
ORDER BY time, gpu
