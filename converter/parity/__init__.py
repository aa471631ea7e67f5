"""Proof: running the original and the graphs, judging what they give, finding where they part."""
