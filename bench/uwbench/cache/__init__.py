"""The embeddings cache: its files, records, clip tables and upkeep."""
