"""OTLP receivers: from the bytes that tracing clients send to rows of `spans`."""
