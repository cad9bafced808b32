"""The model: encoder, adapter and language model, and its tokens."""
