"""sentence-transformers models, as a plugin of the converter."""
