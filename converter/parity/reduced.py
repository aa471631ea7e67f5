"""Graphs of fewer bits at one size of parity: whether they still compute the same thing.

How good a precision is, its budget says, on natural inputs (`converter.precision`). Here it is held to what rounding
may cost on whatever inputs parity runs on: a graph that fails at a size, lost a scale or overflows is far beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from converter.additions import Precision
from converter.errors import ParityError
from converter.parity.metrics import Array, Terms, compare_all, distance, masked
from converter.parity.runners import CASE, Case, load, open_session, run_graph
from converter.parity.verify import cannot_run
from converter.records import Comparison, Dtype
from converter.request import OnStage
from converter.runtime.files import suffix_of

if TYPE_CHECKING:
    import onnxruntime

# A cosine of c is a relative error of about sqrt(2 (1 - c)). One size with made-up values is allowed so many times
# what the budget allows on the mean of natural inputs. Measured on tiny random bert, qwen3, t5, whisper, vit and clip:
# up to 0.9 times that for q8 and 1.9 times for q4 and q4f16.
FACTOR = 3.0
# Where a budget names no cosine. Measured on the same: 0.04 in 8 bits, 0.58 in 4-bit floats (three logits of a bert of
# width 36); values that have nothing to do with each other are 1.4 off.
UNSTATED = 0.9


def allowed_error(precision: Precision) -> float:
    """The largest relative error, |found - expected| / |expected| over an output, that a case may have."""
    cosine = precision.budget.get("cosine")
    return UNSTATED if cosine is None else FACTOR * math.sqrt(2 * (1 - cosine))


def compare_precisions(
    references: Sequence[Path],
    folder: Path,
    precisions: Mapping[str, Precision | None],
    terms: Terms,
    on_stage: OnStage,
) -> list[Comparison]:
    """The graphs in `folder` in each precision, at every size that was saved. None is one whose plugin is not there."""
    rows: list[Comparison] = []
    for name, precision in precisions.items():
        with on_stage(f"run {name}"):
            stem, session = "", None
            for path in (path for path in references if path.suffix == CASE):
                case: Case = load(path)
                graph = folder / f"{case.criteria.stem}{suffix_of(name)}.onnx"
                if case.criteria.stem != stem:
                    stem, session = case.criteria.stem, open_session(graph) if graph.is_file() else None
                if session is not None:
                    known = precision or Precision(name, tuple)
                    rows += compare_reduced(session, case, known, terms)
    return rows


def compare_reduced(
    session: onnxruntime.InferenceSession, case: Case, precision: Precision, terms: Terms
) -> list[Comparison]:
    """Each output of a reduced graph with the original's: halves within their tolerance, all others within the error
    that their budget stands for. A component's own `tolerance` for the precision takes its place."""
    name, criteria = precision.name, case.criteria
    reduced = replace(criteria, stem=f"{criteria.stem}{suffix_of(name)}")
    judged = name in get_args(Dtype) or name in criteria.tolerance
    try:
        found = run_graph(session, case.feed)
    except ParityError as error:
        return cannot_run(reduced.stem, case, error)
    if judged:
        results = {"original": case.original, name: found}
        return compare_all(reduced, case.size, results, case.valid, replace(terms, dtype=name))
    return list(_rows(replace(case, criteria=reduced), found, precision))


def _rows(case: Case, found: Mapping[str, Array], precision: Precision) -> Iterator[Comparison]:
    allowed = allowed_error(precision)
    for output, expected in case.original.items():
        if expected.dtype.kind != "f":
            continue
        error = relative_error(expected, found[output], case.valid.get(output))
        max_abs, cosine = distance(expected, found[output].astype(expected.dtype), case.valid.get(output))
        misses = () if error <= allowed else (f"relative error {error:.3g} misses {allowed:.3g}",)
        yield Comparison(
            case.criteria.stem,
            case.size.label,
            output,
            f"{precision.name}/original",
            max_abs,
            cosine,
            not misses,
            {"relative_error": error},
            misses,
        )


def relative_error(expected: Array, found: Array, valid: Array | None = None) -> float:
    """|found - expected| / |expected| over the valid positions; infinite where shapes or what is finite differ."""
    if expected.shape != found.shape:
        return math.inf
    left, right = (masked(array.astype(np.float64), valid) for array in (expected, found))
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)):
        return math.inf
    size, error = np.linalg.norm(left[finite]), np.linalg.norm((right - left)[finite])
    return float(error / size) if size else float(error)
