SELECT evaluator, count(*) AS n, avg(value) AS mean FROM scores WHERE status = 'scored' GROUP BY evaluator ORDER BY evaluator
