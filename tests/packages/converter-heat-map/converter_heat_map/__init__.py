"""A detector of small things in images, as a plugin of the converter."""
