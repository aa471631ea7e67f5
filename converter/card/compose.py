"""The whole card out of its sections, in the place of an older one. Equal facts give equal text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.additions import PackageBuild
from converter.card.facts import CardFacts
from converter.card.front_matter import CARD, join_front_matter
from converter.card.header import front_matter
from converter.card.keep import BEGIN, END, merge_card
from converter.errors import ConverterError


def write_card(build: PackageBuild) -> None:
    """Write README.md. What somebody wrote into the one of the package before is kept."""
    text = merge_card(render_card(build), *_previous_card(build))
    (build.folder / CARD).write_text(text, encoding="utf-8")


def render_card(build: PackageBuild) -> str:
    """The text of README.md: front matter, then each section that has something to say."""
    texts = [text.strip("\n") for section in build.sections if (text := section.text(build))]
    body = "\n\n".join([BEGIN, *texts, END])
    return join_front_matter(front_matter(CardFacts.of(build)), body + "\n")


def _previous_card(build: PackageBuild) -> tuple[str | None, str | None]:
    """The card as it lies there, and as its record makes it: where both are equal nobody wrote into it."""
    folder = build.previous
    if folder is None or not (folder / CARD).is_file():
        return None, None
    try:
        found = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):  # no text: nothing of it could be kept
        return None, None
    try:
        record = _recorded(folder)
        return found, render_card(replace(build, folder=folder, record=record, checkpoint=None))
    except (ConverterError, LookupError, TypeError, ValueError, AttributeError):
        return found, None  # a record that is damaged; then all of the text counts as written by somebody


def _recorded(folder: Path) -> Mapping[str, Any]:
    from converter.packages.package import read_record

    return read_record(folder)
