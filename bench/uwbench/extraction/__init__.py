"""From clips and an encoder to parts in the cache."""
