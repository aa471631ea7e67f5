"""What was made and what it is worth: a row for each precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ParityError
from converter.precision.budget import Budget, Quality
from converter.precision.latency import Latency
from converter.precision.search import Trial

UNJUDGED = "nothing was measured: --unjudged"


@dataclass(frozen=True)
class PrecisionRow:
    """One precision: the bytes and hashes of its files by name, its size as a share of fp32, its quality and speed.

    `plan` made it, `tried` is what it was chosen from, `budget` what it had to keep. Without `quality` it was not
    judged. `calibration` says on what activations were observed, if they were; `notes` are for the user. `refused` says
    why it cannot be, whatever the quality.
    """

    name: str
    files: Mapping[str, int]
    hashes: Mapping[str, str]
    ratio: float
    quality: Quality | None
    budget: Budget
    plan: Any
    tried: tuple[Trial, ...] = ()
    latency: Latency | None = None
    calibration: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    refused: str = ""

    @property
    def misses(self) -> tuple[str, ...]:
        """One sentence for each bound of the budget that is missed, and for what cannot be stored at all."""
        missed = () if self.quality is None else self.quality.misses(self.budget)
        return (*missed, self.refused) if self.refused else missed

    @property
    def passed(self) -> bool:
        return not self.misses

    @property
    def rehearsal(self) -> str:
        """What is missed, as it was on the samples the plan was chosen by: here it shows whether they were too few."""
        trial = next((trial for trial in self.tried if trial.plan == self.plan), None)
        if trial is None or self.quality is None:
            return ""
        values, judged = trial.quality.values, self.quality
        missed = [name for name, bound in self.budget.items() if judged.misses({name: bound})]
        found = ", ".join(f"{name} {values[name]:.5f}" for name in missed if name in values)
        return f"on the {trial.quality.samples} samples it was chosen by: {found}" if found else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values: the precision's entry in converter.json."""
        recipe = {**self.plan.to_json()}
        if self.calibration is not None:
            recipe["calibration"] = dict(self.calibration)
        return {
            "files": [f"onnx/{name}" for name in self.files],
            "bytes": sum(self.files.values()),
            "ratio": round(self.ratio, 4),
            "quality": {} if self.quality is None else self.quality.to_json(),
            "judged_on": "" if self.quality is None else self.quality.what,
            "speed": {} if self.latency is None else self.latency.to_json(),
            "budget": dict(self.budget),
            "passed": self.passed,
            "misses": list(self.misses),
            "label": self.plan.label,
            "recipe": recipe,
            "tried": [trial.to_json() for trial in self.tried],
            "notes": list(self.notes),
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

    def entered(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A package's record with the rows of what was kept, and apart from them of what missed and was not written."""
        rows = {row.name: row.to_json() for row in self.rows}
        missed = {**record.get("missed_precisions", {})}
        missed |= {name: {**row, "files": []} for name, row in rows.items()}
        return {
            **record,
            "precisions": {**record.get("precisions", {}), **{name: rows[name] for name in self.kept}},
            "missed_precisions": {name: row for name, row in missed.items() if name not in self.kept},
        }

    def require_passed(self) -> None:
        """Raise ParityError, saying by how much, where a precision missed its budget."""
        failed = [row for row in self.rows if not row.passed]
        if not failed:
            return
        left = [row.name for row in failed if row.name not in self.kept]
        ways = "give a lower --keep, or --keep-failed"
        if all(row.refused for row in failed):
            ways = "leave them out of --precisions: no --keep changes that"
        lines = [f"{row.name}: {', '.join(row.misses)}" for row in failed]
        lines += [f"{row.name}, {row.rehearsal}" for row in failed if row.rehearsal]
        raise ParityError(
            "the budget is missed on the evaluation inputs:\n  " + "\n  ".join(lines),
            remedy=f"not written: {', '.join(left)}; {ways}"
            if left
            else "written all the same, and marked in converter.json",
            topic="budget",
        )
