"""OTLP metrics: read, bounded, and served again to Prometheus."""
