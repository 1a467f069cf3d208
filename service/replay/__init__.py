"""Replays a recording of real telemetry through the service, its times moved to now."""
