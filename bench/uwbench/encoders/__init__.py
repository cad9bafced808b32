"""Encoders: the contract, the conformance check, one file per family. Importing this loads no torch."""
