"""The companion of uwbench: what a UniWhisper costs to train, and exports that the benchmark loads."""
