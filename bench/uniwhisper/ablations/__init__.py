"""The arms of the ablations: a title and one change each."""
