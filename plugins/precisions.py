"""The precisions a package can have beside fp32: the plans that may keep the budget, and the budget.

The plans and their numbers come from measurements on real text: docs/quantization.md has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter import Precision, hookimpl

if TYPE_CHECKING:
    from converter.hookspecs import Register
    from converter.precision.formats import Plan


def _halves() -> Sequence[Plan]:
    from converter.precision.formats import Plan

    return (Plan(tables=False, half=True),)


def _eight() -> Sequence[Plan]:
    from converter.precision.formats import Blocks, Columns, Plan

    return (
        Plan(Columns()),
        Plan(Columns(smooth=0.75)),
        Plan(Columns(activations="row", smooth=0.65)),
        Plan(Blocks(8, size=64)),
        Plan(Blocks(8)),
        Plan(Blocks(8, size=16)),
        Plan(Blocks(8, size=16, accuracy_level=0)),
    )


def _eight_unseen() -> Plan:
    """Of 8 bits, what erred least on real text at a size and speed that can be lived with."""
    from converter.precision.formats import Blocks, Plan

    return Plan(Blocks(8))


def _signed() -> Sequence[Plan]:
    from converter.precision.formats import Columns, Plan

    return (Plan(Columns()),)


def _unsigned() -> Sequence[Plan]:
    from converter.precision.formats import Columns, Plan

    return (Plan(Columns(signed=False)),)


def _four() -> Sequence[Plan]:
    from converter.precision.formats import Blocks, Plan

    coarse, fine = Blocks(4, symmetric=False), Blocks(4, size=16, symmetric=False)
    return (Plan(coarse), Plan(fine), Plan(Blocks(8)))


def _four_in_halves() -> Sequence[Plan]:
    from converter.precision.formats import Blocks, Plan

    return (Plan(Blocks(4, symmetric=False), half=True), Plan(Blocks(8), half=True))


def _floats() -> Sequence[Plan]:
    from converter.precision.formats import NormalFloat, Plan

    return (Plan(NormalFloat()),)


EIGHT = {"cosine": 0.999, "cosine_min": 0.995, "top1": 0.97, "maxsim_top1": 0.97}
FOUR = {"cosine": 0.99}


@hookimpl
def register_precisions(register: Register[Precision]) -> None:
    for precision in (
        Precision("fp16", _halves, "weights and arithmetic in fp16, interface in fp32", {"cosine": 0.99999}),
        Precision("q8", _eight, "weights of 8 bits, in whichever way keeps the budget", EIGHT, _eight_unseen),
        Precision("int8", _signed, "signed weights and activations of 8 bits, as is usual"),
        Precision("uint8", _unsigned, "unsigned weights and activations of 8 bits, as is usual"),
        Precision("q4", _four, "weights of 4 bits in blocks where they may, of 8 elsewhere", FOUR),
        Precision("q4f16", _four_in_halves, "the same, with arithmetic in fp16", FOUR),
        Precision("bnb4", _floats, "weights in the 4-bit floats of bitsandbytes"),
    ):
        register(precision)
