"""The precisions a package can have beside fp32: the plans to try, the smallest first that may keep the budget.

The plans' order and numbers come from measurements on real text: docs/quantization.md has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter import Precision, hookimpl

if TYPE_CHECKING:
    from converter.hookspecs import Register
    from converter.precision.formats import Blocks, Columns, Plan


def _halves() -> Sequence[Plan]:
    from converter.precision.formats import Plan

    return (Plan(tables=False, half=True),)


def _blocks() -> Sequence[Plan]:
    from converter.precision.formats import Blocks, Plan

    return (
        Plan(Blocks(8)),
        Plan(Blocks(8, size=16)),
        Plan(Blocks(8, size=16, accuracy_level=0)),
    )


def _coarse_blocks() -> Sequence[Plan]:
    return _blocks()[:1]


def _signed() -> Sequence[Plan]:
    from converter.precision.formats import Plan

    return (Plan(_signed_columns()),)


def _unsigned() -> Sequence[Plan]:
    from converter.precision.formats import Columns, Plan

    return (Plan(Columns(signed=False)),)


def _signed_columns() -> Columns:
    from converter.precision.formats import Columns

    return Columns(signed=True)


def _four_bits() -> Blocks:
    from converter.precision.formats import Blocks

    return Blocks(4, symmetric=False)


@hookimpl
def register_precisions(register: Register[Precision]) -> None:
    for precision in (
        Precision("fp16", _halves, "weights and arithmetic in fp16, interface in fp32", {"cosine": 0.99999}),
        Precision(
            "q8",
            _blocks,
            "weights of 8 bits in blocks",
            {"cosine": 0.999, "cosine_min": 0.995, "top1": 0.97},
            faster=_signed_columns,
        ),
        Precision("int8", _signed, "signed weights and activations of 8 bits"),
        Precision("uint8", _unsigned, "unsigned weights and activations of 8 bits"),
        Precision(
            "q4",
            _coarse_blocks,
            "weights of 4 bits in blocks where they may, of 8 elsewhere",
            {"cosine": 0.99},
            cheaper=_four_bits,
            faster=_four_bits,
        ),
    ):
        register(precision)
