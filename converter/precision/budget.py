"""What a precision must keep of fp32, and by how much it misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import UsageError

Budget = Mapping[str, float]

# measure -> what it says
MEASURES: Mapping[str, str] = {
    "cosine": "mean cosine between an output and fp32's",
    "cosine_min": "the least cosine of any",
    "top1": "share of cases whose nearest text, likeliest token or label is fp32's",
    "maxsim_top1": "share of queries whose best page by MaxSim is fp32's",
    "perplexity": "perplexity as a multiple of fp32's, such as 1.01x: an upper bound",
}
RATIOS = ("perplexity",)
COUNTED = ("top1", "maxsim_top1")


@dataclass(frozen=True)
class Quality:
    """Measures by name, over `samples` evaluation inputs, which are `what`.

    Shares are of `cases`: as many as there are samples, unless a sample holds several (tokens of a text).
    """

    values: Mapping[str, float]
    samples: int
    what: str = "texts"
    cases: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {**self.values, "samples": self.samples}

    def misses(self, budget: Budget) -> tuple[str, ...]:
        """One sentence for each measure that is beyond its bound."""
        missed = []
        for name, bound in budget.items():
            value = self.values.get(name, float("nan"))
            if not (value <= bound if name in RATIOS else value >= bound):
                missed.append(f"{name} {value:.5f} misses {bound:g} by {abs(value - bound):.2g}")
        return tuple(missed)

    def closeness(self, budget: Budget) -> float:
        """How far inside the budget the worst measure is, as a share of the error it allows; below 0 is a miss."""
        rooms = [self._room(name, bound) for name, bound in budget.items()]
        return min(rooms, default=0.0)

    def _room(self, name: str, bound: float) -> float:
        value = self.values.get(name, float("nan"))
        error, allowed = (value - 1, bound - 1) if name in RATIOS else (1 - value, 1 - bound)
        room = 1 - error / max(allowed, 1e-9)
        return room if room == room else float("-inf")


def error_of(quality: Quality) -> float:
    """One number to rank by: how far off outputs are on the whole."""
    if "cosine" in quality.values:
        return 1 - quality.values["cosine"]
    return 1 - min(quality.values.values(), default=0.0)


def parse_keep(given: Iterable[str]) -> dict[str, float]:
    """`cosine=0.999`, `perplexity=1.01x` and the like, as a budget. Raises UsageError for what is none, or no one."""
    budget: dict[str, float] = {}
    for entry in given:
        name, _, number = (part.strip() for part in entry.partition("="))
        if name not in MEASURES:
            raise UsageError(
                f"--keep {entry}: {name!r} is not measured", remedy=f"choose from {', '.join(MEASURES)}"
            )
        low, high, example = (1.0, 100.0, "1.01x") if name in RATIOS else (0.0, 1.0, "0.999")
        try:
            bound = float(number.removesuffix("x") if name in RATIOS else number)
        except ValueError:
            bound = -1.0
        if not low <= bound <= high:
            raise UsageError(
                f"--keep {entry}: {number!r} is not a number from {low:g} to {high:g}",
                remedy=f"write --keep {name}={example}",
            )
        if budget.setdefault(name, bound) != bound:
            raise UsageError(f"--keep {name} has two bounds", remedy="give one")
    return budget
