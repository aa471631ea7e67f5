"""Proving: which parity to run on this machine, and running it stage by stage."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psutil

from converter.parity import Terms, compare_all, parity_sizes
from converter.play import Played, play_graphs, play_original
from converter.records import (
    Architecture,
    Checkpoint,
    Comparison,
    Component,
    ParityMode,
    ParityReport,
)
from converter.runners import Case, load, open_session, run_graph, run_original, save
from converter.scenario import Scenario

# The original in fp32, its activations and the interpreter, in multiples of its weights; the session comes after it.
MEMORY_FACTOR = 1.5
# Bytes of fp32 weights up to which the original is loaded whole. Beyond, a run costs their reading, of which the
# system's cache makes a copy: 0.12 s for the 0.44 GB of bert-base.
RESIDENT = 256 * 2**20

# Bytes of fp32 weights up to which scenarios are played to their end; each of their steps reads all of them.
GENERATED_WHOLE, FEW_STEPS = 2**30, 4
SCENARIO = ".scenario"  # the ending of a file that holds one

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
    scenarios: Sequence[Scenario] = (),
    on_stage: OnStage,
) -> tuple[Path, ...]:
    """What the original and the wrappers make of every size, and the original of every scenario.

    A file each in `folder`, which takes its weights too.
    """
    with on_stage("run the original"):
        offload = folder / "weights" if stays_on_disk(checkpoint) else None
        model = architecture.source.original(checkpoint, task, offload)
        cases = (
            case
            for component in components
            for case in run_original(model, component, parity_sizes(component.axes, seed))
        )
        files = tuple(save(case, folder / f"{number}.case") for number, case in enumerate(cases))
        cheap = 4 * elements(checkpoint) <= GENERATED_WHOLE
        for number, scenario in enumerate(scenarios):
            played = play_original(model, scenario, seed, steps=scenario.steps if cheap else FEW_STEPS)
            files += (save(played, folder / f"{number}{SCENARIO}"),)
        del model, cases
        gc.collect()
    return files


def compare_graphs(
    references: Sequence[Path], folder: Path, terms: Terms, *, device: str, on_stage: OnStage
) -> tuple[Comparison, ...]:
    """Original, wrapper and graph, pairwise, at every size that was saved, then what was generated.

    `folder` holds the graphs.
    """
    rows: list[Comparison] = []
    stem, session = "", None
    with ExitStack() as stages:
        for path in (path for path in references if path.suffix != SCENARIO):
            case: Case = load(path)
            if case.criteria.stem != stem:
                session, stem = None, case.criteria.stem  # the old one goes before the new one comes
                stages.pop_all().close()
                stages.enter_context(on_stage(f"run {stem}"))
                session = open_session(folder / f"{stem}.onnx", device=device)
            assert session is not None
            graph = run_graph(session, case.feed)
            results = {"original": case.original, "wrapper": case.wrapper, "graph": graph}
            rows += compare_all(case.criteria, case.size, results, case.valid, terms)
    for path in (path for path in references if path.suffix == SCENARIO):
        played: Played = load(path)
        with on_stage(played.scenario.name):
            rows.append(play_graphs(played, folder, device))
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
