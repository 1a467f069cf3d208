SELECT DISTINCT target, instance, model, engine FROM engine_state
WHERE time >= $start AND time <= $end AND ($model IS NULL OR model = $model)
ORDER BY target, model
