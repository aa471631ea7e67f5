"""Graph transformations, one per file: `run(model) -> bool` edits in place and says whether anything changed."""
