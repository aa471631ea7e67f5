"""The YAML block that a card on the model hub begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD = "README.md"
SOURCE_CARD = "SOURCE_README.md"
_FENCE = "---\n"
# What of the source's card is as true of its package.
_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The block's entries and the text after it. A block that is no YAML mapping stays in the text."""
    import yaml

    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.startswith(_FENCE):
        return {}, text
    block, fence, body = text.removeprefix(_FENCE).partition("\n" + _FENCE)
    if not fence:
        return {}, text
    try:
        entries = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError):
        return {}, text
    if not isinstance(entries, dict):
        return {}, text
    return {str(key): value for key, value in entries.items()}, body


def join_front_matter(entries: Mapping[str, Any], body: str) -> str:
    """The whole text: the entries in their order, then the body."""
    import yaml

    block = yaml.safe_dump(dict(entries), sort_keys=False, allow_unicode=True, width=1000)
    return f"{_FENCE}{block}{_FENCE}\n{body.lstrip()}"


def read_source_card(folder: Path) -> dict[str, Any]:
    """What the card of a checkpoint says of licence, language and pipeline, as plain text or lists of it.

    Empty where there is no card, or nothing in it that can be read.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    entries, _ = split_front_matter(text)
    found = {name: _plain(entries[name]) for name in _CARRIED if name in entries}
    return {name: value for name, value in found.items() if value}


def _plain(value: Any) -> Any:
    """YAML reads `no`, Norwegian, as false, and dates as dates; a card means the letters."""
    if isinstance(value, list):
        return [text for entry in value if (text := _plain(entry))]
    if value is False:
        return "no"
    return str(value) if isinstance(value, str | int | float) and value is not True else ""
