"""A model that scores answers: rubric, client, budget."""
