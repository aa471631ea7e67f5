"""What the process with torch hands back to the one without: plain values and paths, which can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.parity.verify import References
from converter.records import ParityReport, Variant
from converter.weights.writing import Written


@dataclass(frozen=True)
class Spent:
    """What it took: stages with their seconds, and the process's largest resident set in bytes."""

    stages: tuple[tuple[str, float], ...]
    peak_memory: int


@dataclass(frozen=True)
class Made:
    """Graphs, written.

    stand_in    who stood in for the architecture that made them; empty where it is a registered one
    graphs      interface and size of each, by stem
    parity      the verdict, where it needs nothing more
    references  else what the graphs are still to be compared with
    """

    architecture: str
    stand_in: str
    task: str
    variants: tuple[Variant, ...]
    written: Written
    graphs: Mapping[str, Any]
    notes: tuple[str, ...]
    parity: ParityReport | None = None
    references: References = field(default_factory=References)
