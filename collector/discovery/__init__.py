"""Where targets come from: lists, files, HTTP, DNS, Kubernetes; relabelling and sharding of what was found."""
