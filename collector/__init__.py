"""How it comes in: engine scrapes, GPU telemetry, OTLP; and how the engines' metrics are served again."""
