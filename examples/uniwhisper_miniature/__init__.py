"""Train a miniature UniWhisper on three real data sets, holding each out in turn, and score it with uwbench."""
