"""Wrappers that an export carries, so that other benchmarks load it."""
