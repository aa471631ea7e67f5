"""Checkpoints: found, fetched, indexed; adapters and pickles among them. `converter.checkpoint` is the public part."""
