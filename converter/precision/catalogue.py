"""Choosing among the precisions that plugins registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.additions import Precision
from converter.errors import UsageError


def choose_precisions(names: Sequence[str], known: Mapping[str, Precision]) -> tuple[Precision, ...]:
    """The precisions of these names, each once. Raises UsageError for an unknown one."""
    choices = f"choose from {', '.join(known)}"
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"unknown precision {', '.join(map(repr, unknown))}", remedy=choices)
    if not names:
        raise UsageError("no precision is named", remedy=choices)
    return tuple(known[name] for name in dict.fromkeys(names))
