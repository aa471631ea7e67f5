"""The card of a package: README.md, written from what converter.json recorded and from nothing else."""
