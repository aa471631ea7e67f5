"""Choosing among the precisions that plugins registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.additions import Precision
from converter.errors import UsageError
from converter.precision.formats import Plan


def choose_precisions(names: Sequence[str], known: Mapping[str, Precision]) -> tuple[Precision, ...]:
    """The precisions of these names, each once. Raises UsageError for an unknown one."""
    choices = f"choose from {', '.join(known)}"
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"unknown precision {', '.join(map(repr, unknown))}", remedy=choices)
    if not names:
        raise UsageError("no precision is named", remedy=choices)
    return tuple(known[name] for name in dict.fromkeys(names))


def require_matrices(name: str, plans: Sequence[Any], *, found: bool) -> None:
    """Raise UsageError for a precision whose plans are all about stored matrices, of graphs where none is `found`.

    A plan of a plugin need not be about matrices.
    """
    if not found and all(isinstance(plan, Plan) and not plan.half for plan in plans):
        raise UsageError(
            f"{name}: these graphs multiply by no stored fp32 matrix: there is nothing to quantize",
            remedy="choose fp16, or convert without precisions; a graph that is quantized already stays as it is",
        )
