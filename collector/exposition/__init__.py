"""Prometheus text and OpenMetrics: reading an engine's, writing our own."""
