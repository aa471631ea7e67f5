"""Records of what parity found. `converter.records` re-exports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ParityMode = Literal["auto", "full", "structural", "off"]


@dataclass(frozen=True)
class Comparison:
    """One output of one component at one size, two of (original, wrapper, graph) compared.

    others  what further metrics measured, by `metric.measure`; misses says in words which bounds were not kept
    """

    component: str
    size: str
    output: str
    pair: str
    max_abs: float
    cosine: float
    passed: bool
    others: Mapping[str, float] = field(default_factory=dict)
    misses: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParityReport:
    """What was compared, how, and whether all of it held.

    smallest   of each component that failed, the label of the smallest failing size that was found
    warnings   on axes that are not what was declared, and on differences that are float32's own
    located    lines on where the graphs that failed go wrong, if that was asked for
    """

    mode: ParityMode
    why: str
    comparisons: tuple[Comparison, ...] = ()
    tensors_checked: int = 0
    smallest: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    located: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing that was compared differs. With mode `off` nothing was, which proves nothing."""
        return all(row.passed for row in self.comparisons)

    @property
    def proven(self) -> bool:
        """Whether something was compared and all of it held."""
        return self.mode != "off" and bool(self.comparisons) and self.passed
