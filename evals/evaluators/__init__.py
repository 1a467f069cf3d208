"""One evaluator a file; each is found by reflection."""
