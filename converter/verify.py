"""Proving: which parity to run on this machine, and running it stage by stage."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psutil

from converter.parity import Terms, compare_all, parity_sizes
from converter.records import (
    Architecture,
    Checkpoint,
    Comparison,
    Component,
    ParityMode,
    ParityReport,
)
from converter.runners import load_case, open_session, run_graph, run_original, save_case

# The original in fp32, its activations and the interpreter, in multiples of its weights; the session comes after it.
MEMORY_FACTOR = 1.5
# Bytes of fp32 weights up to which the original is loaded whole. Beyond, a run costs their reading, of which the
# system's cache makes a copy: 0.12 s for the 0.44 GB of bert-base.
RESIDENT = 256 * 2**20

OnStage = Callable[[str], AbstractContextManager[None]]


def choose_mode(asked: ParityMode, checkpoint: Checkpoint) -> tuple[ParityMode, str]:
    """What `auto` comes to on this machine, and why; any other choice stands."""
    if asked != "auto":
        return asked, "asked for"
    needed, available = int(4 * elements(checkpoint) * MEMORY_FACTOR), psutil.virtual_memory().available
    figures = (
        f"the original in fp32 takes about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free"
    )
    return ("full", figures) if needed < available else ("structural", figures)


def elements(checkpoint: Checkpoint) -> int:
    """How many numbers its tensors hold."""
    return sum(math.prod(info.shape) for info in checkpoint.tensors.values())


def stays_on_disk(checkpoint: Checkpoint) -> bool:
    """Whether the original runs with its weights on disk, read layer by layer as they are needed."""
    return 4 * elements(checkpoint) > RESIDENT


def save_references(
    architecture: Architecture,
    components: Sequence[Component],
    checkpoint: Checkpoint,
    task: str,
    folder: Path,
    *,
    seed: int,
    on_stage: OnStage,
) -> tuple[Path, ...]:
    """What the original and the wrappers make of every size, a file each in `folder`, which takes its weights too."""
    with on_stage("run the original"):
        offload = folder / "weights" if stays_on_disk(checkpoint) else None
        model = architecture.source.original(checkpoint, task, offload)
        cases = (
            case
            for component in components
            for case in run_original(model, component, parity_sizes(component.axes, seed))
        )
        files = tuple(save_case(case, folder / f"{number}.case") for number, case in enumerate(cases))
        del model, cases
        gc.collect()
    return files


def compare_graphs(
    references: Sequence[Path], folder: Path, terms: Terms, *, device: str, on_stage: OnStage
) -> tuple[Comparison, ...]:
    """Original, wrapper and graph, pairwise, at every size that was saved; `folder` holds the graphs."""
    rows: list[Comparison] = []
    stem, session = "", None
    with ExitStack() as stages:
        for path in references:
            case = load_case(path)
            if case.criteria.stem != stem:
                session, stem = None, case.criteria.stem  # the old one goes before the new one comes
                stages.pop_all().close()
                stages.enter_context(on_stage(f"run {stem}"))
                session = open_session(folder / f"{stem}.onnx", device=device)
            assert session is not None
            graph = run_graph(session, case.feed)
            results = {"original": case.original, "wrapper": case.wrapper, "graph": graph}
            rows += compare_all(case.criteria, case.size, results, case.valid, terms)
    return tuple(rows)


def verdict(mode: ParityMode, why: str, rows: Sequence[Comparison], tensors_checked: int = 0) -> ParityReport:
    """A report that cannot pass empty: parity that compared nothing is a failure of ours, not a success."""
    if mode != "off" and not rows:
        rows = (Comparison("", "", "", "nothing was compared", float("inf"), -1.0, False),)
    return ParityReport(mode, why, tuple(rows), tensors_checked)


def failure(report: ParityReport) -> str:
    """The worst failing comparison of each component, in words."""
    failed = [row for row in report.comparisons if not row.passed]
    worst = sorted(failed, key=lambda row: -row.max_abs)[:3]
    lines = [
        f"{row.component} {row.output} at {row.size}: {row.pair} differ by {row.max_abs:.2e} (cosine {row.cosine:.6f}"
        f"{''.join(f', {name} {value:.6g}' for name, value in row.others.items())})"
        for row in worst
    ]
    return f"parity failed in {len(failed)} of {len(report.comparisons)} comparisons:\n  " + "\n  ".join(
        lines
    )
