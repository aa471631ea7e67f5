"""Differences that float32 itself makes: the original is run once more, in float64.

Depths in metres and logits of trained models can be so large that two right computations in float32 are further apart
than the usual bound. A comparison that misses nothing but that bound, or the cosine of small vectors beside large
ones, holds if the graph is as near to the exact result as the original is.

Models trained with few bits in view round what they compute, and where the last bit of float32 moves a number over the
edge between two steps, a whole step is the difference: there, too, the graph must be as near to exact as the original.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from converter.additions import Metric
from converter.parity.metrics import Array, Terms, compare_all, masked, tolerance_for
from converter.parity.originals import elements
from converter.parity.runners import CASE, Case, load, open_session, run_graph
from converter.records import Comparison, Component

if TYPE_CHECKING:
    from torch import nn

    from converter.parity.proof import Subject
    from converter.request import ConversionRequest

# Two computations that round alike err alike, but their largest errors scatter, the more the fewer numbers there are.
# Measured up to 2.2 times the original's, on five logits a row (docs/architecture.md); the factor was 2 until then.
# A mistake that it lets through is below SHARE.
FACTOR = 4.0
# Never more than this part of the output's largest number, however far the original itself is off.
SHARE = 1e-4
# Where a graph rounds on purpose numbers are off by whole steps: their root mean square says more than the largest.
# Measured up to 1.3 times the original's on BitNet's layers, 1280 wide with random weights (both 7e-4 of the largest
# number at 3 layers, 2e-3 at 12; single numbers 5e-3 and 2.6e-2), 1.5 times on three logits of I-BERT, 768 wide.
STEPS_SHARE = 1e-1
STEPS = frozenset({"Round", "QuantizeLinear", "DynamicQuantizeLinear"})
EXACT = ".float64"  # how far a side is from exact, among the measures of a comparison
# The original in float64 and, while it is loaded, in float32.
MEMORY_FACTOR = 1.5


def settle_rounding(
    request: ConversionRequest,
    subject: Subject,
    folder: Path,
    references: Sequence[Path],
    rows: Sequence[Comparison],
) -> tuple[Comparison, ...]:
    """The comparisons; those that hold in the light of float64 have passed, with what was measured there.

    `folder` holds the graphs, `references` what the original gave. A bound that the user set stands as it is, and an
    original that cannot be run in float64 excuses nothing.
    """
    broken = {row.component for row in rows if math.isinf(row.max_abs)}  # it does not run everywhere
    asked = {row.component for row in rows if not row.passed} - broken
    if not asked or request.dtype != "fp32" or request.atol is not None or not _fits(subject):
        return tuple(rows)
    model = subject.architecture.source.original(subject.checkpoint, subject.task, None).double()
    settled: dict[tuple[str, ...], Comparison] = {}
    for component in (entry for entry in subject.components() if entry.stem in asked):
        file = folder / f"{component.stem}.onnx"
        steps, session = _rounds(file), open_session(file, device=request.device)
        cases = (load(path) for path in references if path.suffix == CASE)
        compared = [
            row
            for case in cases
            if case.criteria.stem == component.stem
            for row in weighed(
                case, run_graph(session, case.feed), run_exact(model, component, case), subject.metrics, steps
            )
        ]
        settled.update({_key(row): row for row in _held(compared)})
    return tuple(settled.get(_key(row), row) if not row.passed else row for row in rows)


def _key(row: Comparison) -> tuple[str, ...]:
    return row.component, row.size, row.output, row.pair


def _fits(subject: Subject) -> bool:
    return bool(8 * elements(subject.checkpoint) * MEMORY_FACTOR < psutil.virtual_memory().available)


def run_exact(model: nn.Module, component: Component, case: Case) -> Mapping[str, Array]:
    """What the original in float64 makes of the case's inputs; nothing where it cannot be run so."""
    import torch

    tensors = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in component.inputs(case.size).tensors.items()
    }
    try:
        with torch.no_grad():
            outputs: Mapping[str, Any] = component.reference(model, tensors)
            return {name: outputs[name].numpy() for name in case.original}
    except Exception:  # code that asks for float32 by name, the model's or a plugin's
        return {}


def _rounds(file: Path) -> bool:
    """Whether a graph rounds what it computes."""
    import onnx_ir as ir

    return any(node.op_type in STEPS for node in ir.load(file).graph.all_nodes())


def weighed(
    case: Case,
    graph: Mapping[str, Array],
    exact: Mapping[str, Array],
    metrics: Mapping[str, Metric],
    steps: bool,
) -> Iterator[Comparison]:
    """The comparisons of a case that hold but for their difference, with how far each side is from exact."""
    # Metrics that a component names hold as they are. Its cosines are of vectors that may be small beside the largest
    # number, such as rows of a feature map that are nearly all zero.
    forgiven = replace(tolerance_for(case.criteria, "fp32", math.inf), cosine=-1.0)
    criteria = replace(case.criteria, tolerance={"fp32": forgiven})
    share = STEPS_SHARE if steps else SHARE
    results = {
        "original": case.original,
        **({"wrapper": case.wrapper} if case.wrapper else {}),
        "graph": graph,
    }
    for row in compare_all(criteria, case.size, results, case.valid, Terms(metrics)):
        if row.passed and row.output in exact:
            valid = case.valid.get(row.output)
            true = _valid(exact[row.output], valid)
            measure = _root_mean_square if steps else _largest
            errors = {
                f"{side}{EXACT}": measure(_valid(found[row.output], valid) - true)
                for side, found in results.items()
            }
            if row.max_abs <= share * np.abs(true).max(initial=0):
                yield replace(row, others={**row.others, **errors})


def _held(rows: Sequence[Comparison]) -> Iterator[Comparison]:
    """Those whose sides are as near to exact as the original comes at any of the sizes.

    A few logits may happen to be rounded well at one size.
    """
    own = {
        output: max(row.others[f"original{EXACT}"] for row in rows if row.output == output)
        for output in {row.output for row in rows}
    }
    for row in rows:
        if all(row.others[f"{side}{EXACT}"] <= FACTOR * own[row.output] for side in row.pair.split("/")):
            yield row


def _largest(errors: Any) -> float:
    return float(np.abs(errors).max(initial=0))


def _root_mean_square(errors: Any) -> float:
    return float(np.sqrt(np.square(errors).mean())) if errors.size else 0.0


def _valid(array: Array, valid: Array | None) -> Any:
    """The numbers that count; where they are infinite, both sides are."""
    return masked(np.where(np.isfinite(array), array, 0).astype(np.float64), valid)


def rounding_warning(rows: Sequence[Comparison]) -> tuple[str, ...]:
    """A line on the comparisons that hold by their nearness to float64 alone."""
    own, graphs = f"original{EXACT}", f"graph{EXACT}"
    held = [row for row in rows if row.passed and own in row.others]
    if not held:
        return ()
    worst = max(held, key=lambda row: row.max_abs)
    return (
        f"float32 rounds {worst.output} of {worst.component}: {len(held)} comparisons differ by up to"
        f" {worst.max_abs:.1e}; the original is {worst.others[own]:.1e} from itself in float64, the graph"
        f" {worst.others[graphs]:.1e}",
    )
