"""Probes: read a task's embeddings, choose on validation data, predict the test data, score.

`uwbench.probes.run.run_probes` is the way in; torch and faiss are imported where they are used.
"""
