"""Which clips and questions a step sees, and how they become batches."""
