"""Proving: which parity to run on this machine, and running it stage by stage."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from converter.errors import ParityError
from converter.parity.axes import came_out_fixed, could_vary
from converter.parity.drawing import draw_sizes
from converter.parity.metrics import Terms, compare_all, parity_sizes
from converter.parity.originals import elements, open_original
from converter.parity.play import Played, play_graphs, play_original
from converter.parity.runners import CASE, Case, load, open_session, run_graph, run_original, save
from converter.records import (
    Architecture,
    Checkpoint,
    Comparison,
    Component,
    ParityMode,
    ParityReport,
    Size,
)
from converter.request import OnStage
from converter.scenario import Scenario

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

# The original in fp32, its activations and the interpreter, in multiples of its weights; the session comes after it.
MEMORY_FACTOR = 1.5
# Bytes of fp32 weights up to which scenarios are played to their end; each of their steps reads all of them.
GENERATED_WHOLE, FEW_STEPS = 2**30, 4
SCENARIO = ".scenario"  # the ending of a file that holds one


def choose_mode(asked: ParityMode, checkpoint: Checkpoint) -> tuple[ParityMode, str]:
    """What `auto` means on this machine, and why; any other choice stands."""
    if asked != "auto":
        return asked, "asked for"
    needed, available = int(4 * elements(checkpoint) * MEMORY_FACTOR), psutil.virtual_memory().available
    figures = (
        f"the original in fp32 takes about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free"
    )
    return ("full", figures) if needed < available else ("structural", figures)


@dataclass(frozen=True)
class References:
    """What graphs are still to be compared with: files of `converter.parity.runners`; and warnings about axes."""

    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def save_references(
    architecture: Architecture,
    components: Sequence[Component],
    checkpoint: Checkpoint,
    task: str,
    folder: Path,
    *,
    seed: int,
    drawn: int,
    scenarios: Sequence[Scenario] = (),
    on_stage: OnStage,
) -> References:
    """What the original and the wrappers make of every size, and the original of every scenario.

    A file each in `folder`, which takes its weights too. At `drawn` random sizes of each component the wrapper is
    left out.
    """
    warnings: list[str] = []
    with on_stage("run the original"):
        model = open_original(architecture, components, checkpoint, task, folder / "weights")
        files: list[Path] = []
        for component in components:
            for case in _cases(model, component, seed, drawn):
                files.append(save(case, folder / f"{len(files)}{CASE}"))
            warnings += could_vary(model, component)
        cheap = 4 * elements(checkpoint) <= GENERATED_WHOLE
        for number, scenario in enumerate(scenarios):
            played = play_original(model, scenario, seed, steps=scenario.steps if cheap else FEW_STEPS)
            files.append(save(played, folder / f"{number}{SCENARIO}"))
        del model
        gc.collect()
    return References(tuple(files), tuple(warnings))


def reference_sizes(component: Component, seed: int, drawn: int) -> tuple[list[Size], list[Size]]:
    """Where a component is run, in this order: the fixed sizes, and of `drawn` random ones those not among them."""
    fixed = parity_sizes(component.axes, seed)
    labels = {size.label for size in fixed}
    return fixed, [size for size in draw_sizes(component.axes, seed, drawn) if size.label not in labels]


def _cases(model: nn.Module, component: Component, seed: int, drawn: int) -> Iterator[Case]:
    fixed, unseen = reference_sizes(component, seed, drawn)
    yield from run_original(model, component, fixed)
    yield from run_original(model, component, unseen, restated=False)


@dataclass(frozen=True)
class Findings:
    """Every comparison, and warnings about axes that came out fixed."""

    rows: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()


def compare_graphs(
    references: Sequence[Path], folder: Path, terms: Terms, *, device: str, on_stage: OnStage
) -> Findings:
    """Original, wrapper and graph, pairwise, at every size that was saved, then what was generated.

    `folder` holds the graphs.
    """
    rows: list[Comparison] = []
    warnings: list[str] = []
    stem, session = "", None
    with ExitStack() as stages:
        for path in (path for path in references if path.suffix != SCENARIO):
            case: Case = load(path)
            if case.criteria.stem != stem:
                session, stem = None, case.criteria.stem  # the old one goes before the new one comes
                stages.pop_all().close()
                stages.enter_context(on_stage(f"run {stem}"))
                session = open_session(folder / f"{stem}.onnx", device=device)
                warnings += came_out_fixed(session, stem, case.axes)
            assert session is not None
            rows += compare_case(session, case, terms)
    for path in (path for path in references if path.suffix == SCENARIO):
        played: Played = load(path)
        with on_stage(played.scenario.name):
            rows.append(play_graphs(played, folder, device))
    return Findings(tuple(rows), tuple(warnings))


def compare_case(session: onnxruntime.InferenceSession, case: Case, terms: Terms) -> list[Comparison]:
    """The graph beside what the original and, where it ran, the wrapper gave. One that cannot run differs in all."""
    results = {"original": case.original, **({"wrapper": case.wrapper} if case.wrapper else {})}
    try:
        graph = run_graph(session, case.feed)
    except ParityError as error:
        return cannot_run(case.criteria.stem, case, error)
    return compare_all(case.criteria, case.size, {**results, "graph": graph}, case.valid, terms)


def cannot_run(stem: str, case: Case, error: ParityError) -> list[Comparison]:
    """A graph that fails at a size differs in every output."""
    return [
        Comparison(
            stem, case.size.label, output, "graph/original", math.inf, -1.0, False, misses=(error.message,)
        )
        for output in case.original
    ]


def verdict(
    mode: ParityMode,
    why: str,
    found: Findings,
    *,
    warnings: Sequence[str] = (),
) -> ParityReport:
    """A report that cannot pass empty: parity that compared nothing is a failure of ours, not a success."""
    rows = found.rows
    if mode != "off" and not rows:
        rows = (Comparison("", "", "", "nothing was compared", math.inf, -1.0, False),)
    return ParityReport(mode, why, rows, warnings=(*warnings, *found.warnings))


def failure(report: ParityReport) -> str:
    """The worst failing comparisons, the smallest failing size of each component, and where it goes wrong, in words."""
    failed = [row for row in report.comparisons if not row.passed]
    worst = sorted(failed, key=lambda row: -row.max_abs)[:3]
    lines = [difference(row) for row in worst]
    lines += [f"smallest failing size of {stem}: {label}" for stem, label in report.smallest.items()]
    heading = f"parity failed in {len(failed)} of {len(report.comparisons)} comparisons:"
    return "\n  ".join((heading, *lines, *report.located))


def difference(row: Comparison) -> str:
    """One comparison in words: what was measured, or why nothing could be."""
    others = "".join(f", {name} {value:.6g}" for name, value in row.others.items())
    why = "" if math.isfinite(row.max_abs) or not row.misses else f": {row.misses[0]}"
    return (
        f"{row.component} {row.output} at {row.size}: {row.pair} differ by {row.max_abs:.2e}"
        f" (cosine {row.cosine:.6f}{others}){why}"
    )
