"""The precisions by name: the plans to try, the smallest first that may keep the budget, and the budget itself.

The plans' order and numbers come from measurements on real text: docs/quantization.md has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from converter.errors import UsageError
from converter.precision.budget import Budget
from converter.precision.formats import Blocks, Columns, Matrix, Plan
from converter.runtime.files import SUFFIXES


@dataclass(frozen=True)
class Precision:
    """A name, plans in the order they are tried, and what must be kept.

    `cheaper` and `faster` are what single matrices get instead as long as the budget is kept, the least sensitive
    first, when size or when speed is preferred.
    """

    name: str
    plans: tuple[Plan, ...]
    budget: Budget = field(default_factory=dict)
    cheaper: Matrix | None = None
    faster: Matrix | None = None

    @property
    def suffix(self) -> str:
        """The end of its files' stems, as transformers.js names them."""
        return SUFFIXES[self.name]


_EIGHT, _FOUR = Plan(Blocks(8)), Blocks(4, symmetric=False)
_FINER = (Plan(Blocks(8, size=16)), Plan(Blocks(8, size=16, accuracy_level=0)))
PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("fp16", (Plan(tables=False, half=True),), {"cosine": 0.99999}),
        Precision(
            "q8",
            (_EIGHT, *_FINER),
            {"cosine": 0.999, "cosine_min": 0.995, "top1": 0.97},
            faster=Columns(signed=True),
        ),
        Precision("int8", (Plan(Columns(signed=True)),)),
        Precision("uint8", (Plan(Columns(signed=False)),)),
        Precision("q4", (_EIGHT,), {"cosine": 0.99}, cheaper=_FOUR, faster=_FOUR),
    )
}


def choose_precisions(names: Sequence[str]) -> tuple[Precision, ...]:
    """The precisions of these names, each once. Raises UsageError for one there is not."""
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise UsageError(
            f"unknown precision {', '.join(map(repr, unknown))}",
            remedy=f"choose from {', '.join(PRECISIONS)}",
        )
    if not names:
        raise UsageError("no precision is named", remedy=f"choose from {', '.join(PRECISIONS)}")
    return tuple(PRECISIONS[name] for name in dict.fromkeys(names))
