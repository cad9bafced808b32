"""Bundles: one model's results with the labels and vectors they came from, in one file that anyone can score again."""
