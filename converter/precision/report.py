"""What was made and what it is worth: a row for each precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.additions import PrecisionPlan
from converter.errors import ParityError
from converter.precision.budget import Budget, Quality
from converter.precision.search import Trial


@dataclass(frozen=True)
class PrecisionRow:
    """One precision: the bytes and hashes of its files by name, its size as a share of fp32, its quality.

    `plan` made it, `tried` is what it was chosen from, `budget` what it had to keep.
    """

    name: str
    files: Mapping[str, int]
    hashes: Mapping[str, str]
    ratio: float
    quality: Quality
    budget: Budget
    plan: PrecisionPlan
    tried: tuple[Trial, ...]

    @property
    def misses(self) -> tuple[str, ...]:
        """One sentence for each bound of the budget that is missed."""
        return self.quality.misses(self.budget)

    @property
    def passed(self) -> bool:
        return not self.misses

    def to_json(self) -> dict[str, Any]:
        """Plain values: the precision's entry in converter.json."""
        return {
            "files": [f"onnx/{name}" for name in self.files],
            "bytes": sum(self.files.values()),
            "ratio": round(self.ratio, 4),
            "quality": self.quality.to_json(),
            "budget": dict(self.budget),
            "passed": self.passed,
            "misses": list(self.misses),
            "recipe": self.plan.to_json(),
            "tried": [trial.to_json() for trial in self.tried],
        }


@dataclass(frozen=True)
class QuantizationReport:
    """The precisions that were asked for, and the names of those that are now in the package at `output`."""

    output: Path
    rows: tuple[PrecisionRow, ...]
    kept: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values only, ready for `json.dumps`."""
        rows = {row.name: row.to_json() for row in self.rows}
        return {"output": str(self.output), "kept": list(self.kept), "precisions": rows}

    def require_passed(self) -> None:
        """Raise ParityError, saying by how much, where a precision missed its budget."""
        failed = [row for row in self.rows if not row.passed]
        if not failed:
            return
        left = [row.name for row in failed if row.name not in self.kept]
        lines = [f"{row.name}: {', '.join(row.misses)}" for row in failed]
        raise ParityError(
            "the budget is missed on the evaluation texts:\n  " + "\n  ".join(lines),
            remedy=f"not written: {', '.join(left)}; give a lower --keep, or --keep-failed"
            if left
            else "written all the same, and marked in converter.json",
        )
