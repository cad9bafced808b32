"""Train a miniature UniWhisper on three real data sets, and score it on two that it never heard."""
