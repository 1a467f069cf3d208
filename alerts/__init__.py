"""What wakes people: Prometheus rules, Alertmanager configuration, runbooks, and their tests."""
