"""What a precision must keep of fp32, and by how much it misses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converter.errors import UsageError

Budget = Mapping[str, float]


@dataclass(frozen=True)
class Quality:
    """Embeddings against those of fp32, over `texts` evaluation texts.

    cosine, cosine_min   of a text's two embeddings: the mean over all texts, and the least of any
    top1                 share of texts whose nearest other text is the same one
    """

    cosine: float
    cosine_min: float
    top1: float
    texts: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def misses(self, budget: Budget) -> tuple[str, ...]:
        """One sentence for each measure that is below its bound."""
        return tuple(
            f"{name} {value:.5f} misses {bound:g} by {bound - value:.2g}"
            for name, bound in budget.items()
            if not (value := float(getattr(self, name))) >= bound
        )


MEASURES = ("cosine", "cosine_min", "top1")


def parse_keep(given: Iterable[str]) -> dict[str, float]:
    """`cosine=0.999` and the like, as a budget. The last of several bounds on one measure counts."""
    budget = {}
    for entry in given:
        name, _, number = (part.strip() for part in entry.partition("="))
        if name not in MEASURES:
            raise UsageError(
                f"--keep {entry}: {name!r} is not measured", remedy=f"choose from {', '.join(MEASURES)}"
            )
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not 0 <= bound <= 1:
            raise UsageError(
                f"--keep {entry}: {number!r} is no number from 0 to 1", remedy=f"write --keep {name}=0.999"
            )
        budget[name] = bound
    return budget
