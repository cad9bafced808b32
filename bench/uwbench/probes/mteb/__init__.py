"""Scores by the rules of mteb 2.26, the library behind MAEB: one file per task type, with its draws reproduced.

Of equal vectors in equal order, the scores are those of mteb's own classes; `benchmarks/parity_mteb.py` compares them.
"""
