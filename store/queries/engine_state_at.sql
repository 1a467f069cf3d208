WITH moments AS (SELECT unnest($moments::TIMESTAMPTZ[]) AS moment),
states AS (
    SELECT * FROM engine_state
    WHERE ($target IS NULL OR target = $target OR instance = $target)
      AND ($model IS NULL OR model = $model)
      AND time >= (SELECT min(moment) FROM moments) - INTERVAL 60 SECONDS
      AND time <= (SELECT max(moment) FROM moments)
),
series AS (SELECT DISTINCT target AS t, model AS m, rank AS k FROM states),
asked AS (SELECT moment, t, m, k FROM moments, series)
SELECT a.moment, s.*
FROM asked a
ASOF JOIN states s ON s.target = a.t AND s.model IS NOT DISTINCT FROM a.m AND s.rank IS NOT DISTINCT FROM a.k
    AND a.moment >= s.time
WHERE s.time >= a.moment - INTERVAL 60 SECONDS
ORDER BY a.moment, s.target, s.model, s.rank
