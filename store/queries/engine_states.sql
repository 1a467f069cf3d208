SELECT * FROM engine_state
WHERE time >= $start AND time <= $end
  AND ($target IS NULL OR target = $target OR instance = $target)
  AND ($model IS NULL OR model = $model)
ORDER BY time, target, model, rank
