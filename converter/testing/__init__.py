"""Parity tests for any architecture, through pytest: `pytest --converter-arch NAME`."""
