"""The companion of uwbench: train a UniWhisper encoder, and export it for the benchmark."""
