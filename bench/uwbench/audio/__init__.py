"""Clips and their audio: what a clip is, decoding, scanning."""
