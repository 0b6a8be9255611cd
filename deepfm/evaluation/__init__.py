"""Measuring versions on a holdout day through their exported graphs, and judging what the figures allow."""
