"""Guides. This file makes them part of the installation, where `converter explain` reads troubleshooting.md."""
