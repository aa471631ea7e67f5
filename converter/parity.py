"""Judging: two arrays and a tolerance in, a verdict out. Nothing is run here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from converter.records import Axis, Comparison, Component, Dtype, Padding, Size, Tolerance

Array = NDArray[np.generic]

# fp32 is the promise. Half precisions are judged against the fp32 original: their bound is what rounding every
# weight and every activation costs.
DEFAULT_TOLERANCES: Mapping[Dtype, Tolerance] = {
    "fp32": Tolerance(),
    "fp16": Tolerance(
        2e-2, 0.9999, reason="rounding to 11 bits; measured 4.2e-3 and 0.999997 on real text weights"
    ),
    "bf16": Tolerance(
        2e-1, 0.99, reason="rounding to 8 bits, eight times that of fp16; not measured, for want of kernels"
    ),
}


def tolerance_for(component: Component, dtype: Dtype, atol: float | None) -> Tolerance:
    """The component's own bound, or the dtype's default; `atol` from the user replaces the absolute bound."""
    bound = component.tolerance.get(dtype, DEFAULT_TOLERANCES[dtype])
    return bound if atol is None else Tolerance(atol, bound.cosine, reason="set by the user with --atol")


def parity_sizes(axes: tuple[Axis, ...], seed: int) -> list[Size]:
    """The sizes a component must be right at, the traced one among them and few others like it.

    Batch 1, every axis at its least, each axis alone at its least, more rows than traced padded right and left, and
    two random points. Deterministic in `seed`.
    """
    draw = random.Random(seed)
    traced = {axis.name: axis.traced for axis in axes}
    wider = {axis.name: min(axis.high, axis.traced + 3) for axis in axes}
    points: list[tuple[Mapping[str, int], Padding]] = [(traced, "none")]
    points += [({**traced, axis.name: axis.low}, "none") for axis in axes]
    points += [({axis.name: axis.low for axis in axes}, "none"), (wider, "right"), (wider, "left")]
    for padding in draw.sample(["none", "left", "right"], 2):
        points.append(({axis.name: draw.randint(axis.low, axis.high) for axis in axes}, padding))  # type: ignore[arg-type]
    sizes = [Size(point, padding, seed + index) for index, (point, padding) in enumerate(points)]
    return list({size.label: size for size in reversed(sizes)}.values())[::-1]


def compare_all(
    component: str,
    size: Size,
    results: Mapping[str, Mapping[str, Array]],
    valid: Mapping[str, Array],
    tolerance: Tolerance,
) -> list[Comparison]:
    """Compare each output between each two of the `results` (`original`, `wrapper`, `graph`)."""
    rows = []
    for first, second in combinations(results, 2):
        for output in results[first]:
            a, b = results[first][output], results[second][output]
            max_abs, cosine = distance(a, b, valid.get(output))
            passed = max_abs <= tolerance.max_abs and cosine >= tolerance.cosine
            pair = f"{second}/{first}"
            rows.append(Comparison(component, size.label, output, pair, max_abs, cosine, passed))
    return rows


def distance(a: Array, b: Array, valid: Array | None = None) -> tuple[float, float]:
    """Largest absolute difference and smallest cosine along the last axis, over the valid positions.

    `valid` is boolean and lies over the leading axes. Arrays of different shape, and a number that is not finite on
    one side only, are infinitely far apart: (inf, -1). Vectors too short to have a direction are judged by their
    difference alone.
    """
    if a.shape != b.shape:
        return float("inf"), -1.0
    left, right = (np.atleast_1d(x).astype(np.float64) for x in (a, b))
    if valid is not None:
        lying = valid.reshape(valid.shape + (1,) * (left.ndim - valid.ndim))
        left, right = (np.where(lying, x, 0.0) for x in (left, right))
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf"), -1.0
    same = ~np.isfinite(left) & (left == right)
    left, right = (np.where(same, 0.0, x) for x in (left, right))
    if left.size == 0:
        return 0.0, 1.0
    if not np.isfinite(left).all():
        return float("inf"), -1.0
    return float(np.abs(left - right).max()), _smallest_cosine(left, right)


def _smallest_cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    directed = norms > 1e-8
    if left.shape[-1] < 2 or not directed.any():
        return 1.0
    return float(((left * right).sum(axis=-1)[directed] / norms[directed]).min())
