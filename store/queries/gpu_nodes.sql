SELECT DISTINCT node FROM gpu_state WHERE time >= $start AND time <= $end ORDER BY node
