SELECT DISTINCT tenant FROM spans WHERE trace_id = $trace
