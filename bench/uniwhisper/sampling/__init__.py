"""Choose each step's clips and questions, and make batches of them."""
