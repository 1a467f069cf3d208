-- The pods that hold a GPU, as far as their processes tell: how an engine finds its GPUs on Kubernetes.
ALTER TABLE gpu_state ADD COLUMN pods VARCHAR;
