"""Clips and their audio: records, decoding, scanning."""
