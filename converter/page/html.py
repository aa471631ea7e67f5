"""Pieces of HTML. Whatever comes from a record is escaped here, and nowhere else is markup made of it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def element(name: str, content: str, **attributes: str) -> str:
    """An element around finished markup; attribute names in Python's spelling: `class_`, `aria_label`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{given}>{content}</{name}>"


def text(name: str, content: object, **attributes: str) -> str:
    """An element around plain text."""
    return element(name, escape(str(content)), **attributes)


def paragraph(*parts: str) -> str:
    """Finished markup as a paragraph."""
    return element("p", " ".join(parts))


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()
) -> str:
    """A table with a caption, the first cell of each row its heading; empty without rows.

    The frame around it can be scrolled, and so reached with the keyboard.
    """
    if not rows:
        return ""
    kinds = ["number" if name in numbers else "" for name in header]
    head = "".join(
        text("th", name, scope="col", class_=kind) for name, kind in zip(header, kinds, strict=True)
    )
    body = "".join(
        element("tr", "".join(_cell(index, cell, kinds[index]) for index, cell in enumerate(row)))
        for row in rows
    )
    whole = text("caption", caption) + element("thead", element("tr", head)) + element("tbody", body)
    return element(
        "div", element("table", whole), class_="scroll", tabindex="0", role="region", aria_label=caption
    )


def _cell(index: int, cell: object, kind: str) -> str:
    if index == 0:
        return text("th", cell, scope="row")
    shown = {"passed": "good", "kept": "good", "FAILED": "bad", "MISSED": "bad"}.get(str(cell), kind)
    return text("td", cell, class_=shown)
