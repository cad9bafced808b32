"""Encoders: the contract, the conformance check, one file a family; importing this loads no torch."""
