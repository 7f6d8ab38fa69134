"""A user's own PyTorch modules: pruned while they train in a loop of the user's, and compacted."""
