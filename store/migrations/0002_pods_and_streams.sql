-- The pods that hold a GPU, as far as their processes tell: how an engine finds its GPUs on Kubernetes.
ALTER TABLE gpu_state ADD COLUMN pods VARCHAR;
-- What a deployed value was new in, as a JSON object of dimensions: a prompt's version is new in that prompt.
ALTER TABLE deployments ADD COLUMN stream VARCHAR;
