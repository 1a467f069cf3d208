"""Prometheus remote write: what `/metrics` serves, pushed to any compatible endpoint."""
