"""Text for people: sizes, tables in Markdown, suggestions for names that are not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def size_text(size: float) -> str:
    """Bytes in the largest unit that leaves a number above one: `1.4 GB`, in powers of ten, as for disks."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def did_you_mean(name: str, known: Iterable[str], *, most: int = 1) -> str:
    """`; did you mean 'x' or 'y'?`, to end an error about an unknown name; empty where nothing is close.

    Of names that differ in `-` and `_` alone the first is enough. Initials are close: `sam` is segment_anything_model.
    """
    different = {entry.replace("-", "_"): entry for entry in reversed(list(known))}
    # difflib's own cutoff of 0.6 takes feature-extraction for text-generation misspelt.
    close = difflib.get_close_matches(name, list(reversed(different.values())), n=most, cutoff=0.65)
    initials = [entry for key, entry in different.items() if "".join(w[:1] for w in key.split("_")) == name]
    close = [*initials, *close][:most]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()
) -> str:
    """A table, columns named in `right` aligned for numbers. Line breaks and bars in cells are made harmless."""
    lines = [header, ["---:" if name in right else "---" for name in header], *rows]
    return "\n".join("| " + " | ".join(_cell(str(cell)) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
