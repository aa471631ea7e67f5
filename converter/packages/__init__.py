"""Packages: built beside their target, described, put in place in one step, checked, published."""
