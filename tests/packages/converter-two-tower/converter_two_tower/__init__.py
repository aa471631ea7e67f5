"""A two-tower recommender, as a plugin of the converter."""
