"""The verdict on graphs that were made, and where something failed, how small a size shows it, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import ParityError
from converter.parity.drawing import sizes_of, smallest_failure, weight
from converter.parity.metrics import Terms
from converter.parity.originals import open_original
from converter.parity.rounding import rounding_warning, settle_rounding
from converter.parity.runners import open_session, run_original
from converter.parity.verify import References, compare_case, compare_graphs, verdict
from converter.records import Checkpoint, Comparison, Component, ParityReport, Size

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

    from converter.parity.proof import Subject
    from converter.pipeline import Ledger
    from converter.registry import Registry
    from converter.request import ConversionRequest


@dataclass(frozen=True)
class Closer:
    """What a closer look at failed comparisons found: all of them, less what was rounding, and why the rest failed.

    `smallest` and `located` are those of a `ParityReport`.
    """

    comparisons: tuple[Comparison, ...]
    smallest: Mapping[str, str] = field(default_factory=dict)
    located: tuple[str, ...] = ()

    def report(self, report: ParityReport) -> ParityReport:
        """The report in the light of it."""
        warnings = (*report.warnings, *rounding_warning(self.comparisons))
        return replace(
            report,
            comparisons=self.comparisons,
            smallest=self.smallest,
            located=self.located,
            warnings=warnings,
        )


def judge_graphs(
    request: ConversionRequest,
    registry: Registry,
    checkpoint: Checkpoint,
    scratch: Path,
    references: References,
    folder: Path,
    why: str,
    ledger: Ledger,
) -> ParityReport:
    """Compare the graphs in `folder` with the references. What failed is looked into in a process with torch."""
    from converter.apart import run_without_torch

    terms = Terms(registry.metrics, request.dtype, request.atol)
    rows = compare_graphs(references.files, folder, terms, device=request.device, on_stage=ledger.stage)
    report = verdict("full", why, rows, warnings=references.warnings)
    if report.passed:
        return report
    closer, spent = run_without_torch(
        "converter.making:look_closer",
        request,
        checkpoint,
        scratch,
        folder,
        references.files,
        report.comparisons,
        progress=ledger.progress,
    )
    ledger.stages += spent.stages
    found: ParityReport = closer.report(report)
    return found


def look_at(
    request: ConversionRequest,
    subject: Subject,
    folder: Path,
    scratch: Path,
    references: Sequence[Path],
    rows: Sequence[Comparison],
    ledger: Ledger,
) -> Closer:
    """What of the failures is rounding; of the rest the smallest failing sizes, with `debug_parity` where they lie."""
    from converter.parity.bisect import bisect_graphs

    with ledger.stage("compare with float64"):
        rows = settle_rounding(request, subject, folder, references, rows)
    if all(row.passed for row in rows):
        return Closer(rows)
    smallest = smallest_failures(request, subject, folder, scratch, rows, ledger)
    if not request.debug_parity:
        return Closer(rows, smallest)
    divergences = bisect_graphs(request, subject, folder, rows, ledger, smallest)
    return Closer(rows, smallest, tuple(line for entry in divergences for line in entry.lines()))


def smallest_failures(
    request: ConversionRequest,
    subject: Subject,
    folder: Path,
    scratch: Path,
    rows: Sequence[Comparison],
    ledger: Ledger,
) -> dict[str, str]:
    """Of each component that failed the smallest size, by its label, at which its graph departs from the original."""
    terms, seed = Terms(subject.metrics, request.dtype, request.atol), request.seed
    failed = {row.component for row in rows if not row.passed and sizes_of([row.size], seed)}
    found: dict[str, str] = {}
    with ledger.stage("find the smallest failing size"):
        components = subject.components()
        model = open_original(
            subject.architecture, components, subject.checkpoint, subject.task, scratch / "weights-again"
        )
        for component in components:
            if component.stem not in failed:
                continue
            own = [row for row in rows if row.component == component.stem]
            known = {row.size: False for row in own} | {row.size: True for row in own if not row.passed}
            session = open_session(folder / f"{component.stem}.onnx", device=request.device)
            shrunk = smallest_failure(
                component.axes, seed, partial(_fails, model, component, session, terms), known
            )
            sizes = sizes_of((label for label, failing in known.items() if failing), seed)
            sizes += [shrunk] if shrunk else []
            if sizes:
                found[component.stem] = min(sizes, key=weight).label
    return found


def _fails(
    model: nn.Module, component: Component, session: onnxruntime.InferenceSession, terms: Terms, size: Size
) -> bool:
    try:
        (case,) = run_original(model, component, [size], restated=False)
    except ParityError:
        return False  # the original's own trouble
    return not all(row.passed for row in compare_case(session, case, terms))
