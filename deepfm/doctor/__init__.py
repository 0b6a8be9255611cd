"""The doctor: one line for each thing that has to be right before a model can be retrained or consumed."""
