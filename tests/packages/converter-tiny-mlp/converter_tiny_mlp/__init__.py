"""Item scores for users, as a plugin of the converter."""
