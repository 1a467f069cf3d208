-- Values of deployed dimensions, with the time of their first request.
SELECT time, service, dimension, value, previous, tenant, source, stream
FROM deployments
ORDER BY time, dimension, value
