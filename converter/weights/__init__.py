"""Weights on their way from checkpoint to data file. `converter.recipes` is the public part."""
