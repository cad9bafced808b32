"""Methods: one file each, from the vectors and labels of a task to a score, its predictions and what was chosen.

`uwbench.methods` is their registry.
"""
