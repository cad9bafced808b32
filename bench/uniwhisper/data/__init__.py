"""Training data: rows, shards, converters, wording and checks."""
