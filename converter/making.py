"""What is done in a process with torch: graphs are made, the original is run. `converter.pipeline` does the rest.

Torch, and what tracing leaves behind, take half a gigabyte that only the process's end gives back; a session that maps
its weights should not have to bear it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from converter.made import Made, Spent
from converter.parity.judging import Closer, look_at
from converter.parity.proof import Job, Subject, terms_of
from converter.parity.rounding import settle_rounding
from converter.parity.verify import References
from converter.pipeline import Ledger, peak_memory, settle
from converter.records import Checkpoint, Comparison, ParityMode
from converter.registry import Registry, load_registry
from converter.request import ConversionRequest, Progress
from converter.selection import find_source

Result = TypeVar("Result")


def make_graphs(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    scratch: Path,
    folder: Path,
    mode: ParityMode,
    why: str,
    progress: Progress,
) -> tuple[Made, Spent]:
    """Trace, clean and write every graph to `folder`. With mode `full`, what proves them is left in `scratch`."""

    def make(subject: Subject, registry: Registry, ledger: Ledger) -> Made:
        for component in subject.components():
            terms_of(request, subject).check(component.criteria)
        return Job(request, registry, subject, ledger).run(folder, scratch, mode, why)

    return _spending(request, checkpoint, scratch, progress, make)


def make_references(
    request: ConversionRequest, checkpoint: Checkpoint, scratch: Path, drawn: int, progress: Progress
) -> tuple[References, Spent]:
    """Run the original, and the wrappers, at every size and at `drawn` random ones: files in `scratch`."""

    def run(subject: Subject, registry: Registry, ledger: Ledger) -> References:
        return Job(request, registry, subject, ledger).run_original(scratch, drawn)

    return _spending(request, checkpoint, scratch, progress, run)


def look_closer(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    scratch: Path,
    folder: Path,
    references: Sequence[Path],
    rows: Sequence[Comparison],
    progress: Progress,
) -> tuple[Closer, Spent]:
    """Whether what failed is rounding, else how small a size shows it, and where it goes wrong."""

    def look(subject: Subject, registry: Registry, ledger: Ledger) -> Closer:
        return look_at(request, subject, folder, scratch, references, rows, ledger)

    return _spending(request, checkpoint, scratch, progress, look)


def weigh_rounding(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    scratch: Path,
    folder: Path,
    references: Sequence[Path],
    rows: Sequence[Comparison],
    progress: Progress,
) -> tuple[Comparison, ...]:
    """The comparisons, those passed that are rounding."""

    def weigh(subject: Subject, registry: Registry, ledger: Ledger) -> tuple[Comparison, ...]:
        return settle_rounding(request, subject, folder, references, rows)

    return _spending(request, checkpoint, scratch, progress, weigh)[0]


def _spending(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    scratch: Path,
    progress: Progress,
    work: Callable[[Subject, Registry, Ledger], Result],
) -> tuple[Result, Spent]:
    """Do the work on what the request asks for, with the checkpoint that was found for it."""
    ledger, registry = Ledger(progress), load_registry()
    adapter, folder = checkpoint.adapter, str(checkpoint.root)
    named, base = (folder, None) if adapter is None else (str(adapter.folder), folder)
    found = replace(request, model=named, base_model=base, revision=None, tiny=False)
    architecture, _ = find_source(found, registry, scratch)
    subject = settle(request, registry, architecture, checkpoint, ledger)
    return work(subject, registry, ledger), Spent(tuple(ledger.stages), peak_memory())
