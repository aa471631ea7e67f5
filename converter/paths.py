"""Whether a path that a file names, or that a link leads to, stays where it belongs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def is_inside(name: str) -> bool:
    """Whether a relative path, by its text alone, stays in its folder on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and not set(name) & set("\\:\0")


def stays_inside(path: Path, folder: Path) -> bool:
    """Whether a file, links resolved, lies in the folder or, for a hub snapshot, among the blobs of its cache."""
    root = folder.resolve()
    blobs = [parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots"]
    return any(path.resolve().is_relative_to(home) for home in (root, *blobs))
