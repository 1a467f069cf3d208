"""Where it is kept: schema and migrations, the batch writer with group commit, named queries."""
