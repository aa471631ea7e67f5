"""The entries of docs/troubleshooting.md, which is installed with the package, by name."""

from __future__ import annotations

import re
from importlib.resources import files

from converter.errors import UsageError
from converter.text import did_you_mean

_HEADING = re.compile(r"^## ([\w-]+)$", re.MULTILINE)


def entries() -> dict[str, str]:
    """The text of each entry, in the file's order."""
    text = (files("converter.docs") / "troubleshooting.md").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def explain(topic: str) -> str:
    """One entry. Raises UsageError for an unknown name."""
    found = entries()
    if topic not in found:
        raise UsageError(
            f"there is no entry {topic!r}{did_you_mean(topic, found)}",
            remedy=f"choose from {', '.join(found)}",
        )
    return found[topic]
