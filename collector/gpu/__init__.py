"""GPU telemetry: NVML on this machine, or a recording of it."""
