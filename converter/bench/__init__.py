"""Benchmarks of packages: what is measured, in a process for each contender, and how it is told."""
