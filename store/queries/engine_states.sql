SELECT * FROM engine_state
WHERE time >= $start AND time <= $end
  AND list_contains($targets::VARCHAR[], target)
ORDER BY time, target, model, rank
