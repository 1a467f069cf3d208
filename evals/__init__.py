"""What it means: sampling, evaluators, the judge, the runner and drift detection."""
