"""Proving: which parity to run on this machine, and running it stage by stage."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from converter.runners import Case, open_session, run_graph, run_original

# The original in fp32, its activations and the interpreter, in multiples of its weights; the session comes after it.
MEMORY_FACTOR = 1.5


def choose_mode(asked: ParityMode, checkpoint: Checkpoint) -> tuple[ParityMode, str]:
    """What `auto` comes to on this machine, and why; any other choice stands."""
    if asked != "auto":
        return asked, "asked for"
    elements = sum(_elements(info.shape) for info in checkpoint.tensors.values())
    needed, available = int(4 * elements * MEMORY_FACTOR), psutil.virtual_memory().available
    figures = (
        f"the original in fp32 takes about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free"
    )
    return ("full", figures) if needed < available else ("structural", figures)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def fits_in_memory(checkpoint: Checkpoint) -> bool:
    """Whether the original can be loaded whole; if not, its weights stay on disk while it runs."""
    return choose_mode("auto", checkpoint)[0] == "full"


def run_parity(
    architecture: Architecture,
    components: Sequence[Component],
    checkpoint: Checkpoint,
    task: str,
    files: Mapping[str, Path],
    *,
    terms: Terms,
    seed: int,
    device: str = "cpu",
    offload: Path | None = None,
    on_stage: Callable[[str], Any],
) -> tuple[Comparison, ...]:
    """Original, wrapper and graph, pairwise, for every component at every size. `files` maps stems to graphs.

    The original is loaded once, run, and released before the first session opens. With `offload`, a folder, its
    weights stay on disk.
    """
    with on_stage("run the original"):
        model = architecture.source.original(checkpoint, task, offload)
        cases = [
            case
            for component in components
            for case in run_original(model, component, parity_sizes(component.axes, seed))
        ]
        del model
        gc.collect()
    rows: list[Comparison] = []
    for component in components:
        with on_stage(f"run {component.stem}"):
            own = [case for case in cases if case.component is component]
            rows += _compare_graph(own, files[component.stem], terms, device)
    return tuple(rows)


def _compare_graph(cases: Sequence[Case], path: Path, terms: Terms, device: str) -> list[Comparison]:
    session = open_session(path, device=device)
    rows: list[Comparison] = []
    for case in cases:
        results = {"original": case.original, "wrapper": case.wrapper, "graph": run_graph(session, case.feed)}
        rows += compare_all(case.component, case.size, results, case.valid, terms)
    return rows


def verdict(mode: ParityMode, why: str, rows: Sequence[Comparison], tensors_checked: int = 0) -> ParityReport:
    """A report that cannot pass empty: parity that compared nothing is a failure of ours, not a success."""
    if mode != "off" and not rows:
        rows = (Comparison("", "", "", "nothing was compared", float("inf"), -1.0, False),)
    return ParityReport(mode, why, tuple(rows), tensors_checked)
