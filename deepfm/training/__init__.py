"""Fitting DeepFM to a window: batches, losses, the loop, and checkpoints that resume."""
