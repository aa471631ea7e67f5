"""Judging: two arrays, a metric and its bounds in, a verdict out. Nothing is run here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from converter.additions import Metric
from converter.errors import PluginError
from converter.records import Axis, Comparison, Criteria, Judgement, Padding, Size, Tolerance

Array = NDArray[np.generic]

# fp32 is the promise. Half precisions are judged against the fp32 original: their bound is what rounding every
# weight and every activation costs.
DEFAULT_TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(),
    "fp16": Tolerance(
        2e-2, 0.9999, reason="rounding to 11 bits; measured 4.2e-3 and 0.999997 on real text weights"
    ),
    "bf16": Tolerance(
        2e-1, 0.99, reason="rounding to 8 bits, eight times that of fp16; not measured, for want of kernels"
    ),
}

DIFFERENCE = "difference"


@dataclass(frozen=True)
class Terms:
    """What outputs are judged by: the registered metrics, the graph's dtype or precision, the user's absolute bound."""

    metrics: Mapping[str, Metric]
    dtype: str = "fp32"
    atol: float | None = None

    def metric(self, judgement: Judgement, stem: str) -> Metric:
        """The metric a component names. Raises PluginError where no metric has that name or that measure."""
        found = self.metrics.get(judgement.metric)
        if found is None:
            raise PluginError(
                f"component {stem!r} is judged by metric {judgement.metric!r}, which no plugin registers",
                remedy=f"there are {', '.join(self.metrics) or 'none'}; `converter plugins` says which plugins failed,"
                " and which took something away",
            )
        unknown = sorted(set(judgement.bounds) - set(found.measures))
        if unknown:
            raise PluginError(
                f"component {stem!r} sets a bound for {unknown[0]!r}, which metric {found.name!r} does not measure",
                remedy=f"it measures {', '.join(found.measures)}",
            )
        return found

    def difference(self, criteria: Criteria) -> Judgement:
        """The component's tolerance, as the judgement every output gets."""
        bound = tolerance_for(criteria, self.dtype, self.atol)
        return Judgement(DIFFERENCE, {"max_abs": bound.max_abs, "cosine": bound.cosine})

    def check(self, criteria: Criteria) -> None:
        """Raise PluginError for a metric that is named and not there: before anything long begins."""
        for judgement in (self.difference(criteria), *criteria.judged_by):
            self.metric(judgement, criteria.stem)


def tolerance_for(criteria: Criteria, dtype: str, atol: float | None) -> Tolerance:
    """The component's own bound, or the dtype's default; `atol` from the user replaces the absolute bound."""
    bound = criteria.tolerance.get(dtype) or DEFAULT_TOLERANCES[dtype]
    return bound if atol is None else Tolerance(atol, bound.cosine, reason="set by the user with --atol")


def parity_sizes(axes: tuple[Axis, ...], seed: int) -> list[Size]:
    """The sizes a component must be right at, whatever is drawn besides: the traced one among few others like it.

    Batch 1, every axis at its least, each axis alone at its least, more rows than traced padded right and left. Values
    come from `seed`.
    """
    traced = {axis.name: axis.traced for axis in axes}
    wider = {axis.name: min(axis.high, axis.traced + 3) for axis in axes}
    points: list[tuple[Mapping[str, int], Padding]] = [(traced, "none")]
    points += [({**traced, axis.name: axis.low}, "none") for axis in axes]
    points += [({axis.name: axis.low for axis in axes}, "none"), (wider, "right"), (wider, "left")]
    sizes = [Size(point, padding, seed + index) for index, (point, padding) in enumerate(points)]
    return list({size.label: size for size in reversed(sizes)}.values())[::-1]


def compare_all(
    criteria: Criteria,
    size: Size,
    results: Mapping[str, Mapping[str, Array]],
    valid: Mapping[str, Array],
    terms: Terms,
) -> list[Comparison]:
    """Compare each output between each two of the `results` (`original`, `wrapper`, `graph`)."""
    rows = []
    for first, second in combinations(results, 2):
        for output in results[first]:
            pair = results[first][output], results[second][output]
            judged = list(_judge(criteria, output, *pair, valid.get(output), terms))
            usual, others = judged[0][0], {}
            for judgement, (measured, _) in zip(criteria.judged_by, judged[1:], strict=True):
                others.update({f"{judgement.metric}.{name}": value for name, value in measured.items()})
            misses = tuple(miss for _, found in judged for miss in found)
            if misses and math.isinf(usual["max_abs"]):
                misses = (_why_apart(*pair), *misses)
            rows.append(
                Comparison(
                    criteria.stem,
                    size.label,
                    output,
                    f"{second}/{first}",
                    usual["max_abs"],
                    usual["cosine"],
                    not misses,
                    others,
                    misses,
                )
            )
    return rows


def _why_apart(expected: Array, found: Array) -> str:
    """Why two arrays are infinitely far apart."""
    if expected.shape != found.shape:
        return f"its shape is {found.shape}, not {expected.shape}"
    return "some of its numbers, or of the other's, are not finite"


def _judge(
    criteria: Criteria, output: str, expected: Array, found: Array, valid: Array | None, terms: Terms
) -> Iterator[tuple[Mapping[str, float], tuple[str, ...]]]:
    """What each metric measures, and the bounds missed in words: the difference first, always measured."""
    concerned = [judgement.concerns(output, terms.dtype) for judgement in criteria.judged_by]
    alone = any(
        judgement.alone for judgement, here in zip(criteria.judged_by, concerned, strict=True) if here
    )
    for judgement, here, binding in (
        (terms.difference(criteria), True, not alone),
        *((judgement, here, here) for judgement, here in zip(criteria.judged_by, concerned, strict=True)),
    ):
        metric = terms.metric(judgement, criteria.stem)
        measured = _measure(metric, expected, found, valid, f"{criteria.stem} {output}") if here else {}
        yield measured, _missed(metric, judgement, measured) if binding else ()


def _measure(
    metric: Metric, expected: Array, found: Array, valid: Array | None, where: str
) -> Mapping[str, float]:
    try:
        measured = metric.measure(expected, found, valid)
        return {name: float(measured[name]) for name in metric.measures}
    except Exception as error:  # a metric may be anybody's
        raise PluginError(
            f"metric {metric.name!r} failed on {where}: {type(error).__name__}: {error}",
            remedy="`converter plugins` shows which plugin registers it",
        ) from error


def _missed(metric: Metric, judgement: Judgement, measured: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(
        f"{name} {measured[name]:.3g} misses {bound:g}"
        for name, bound in judgement.bounds.items()
        if not metric.keeps(name, measured[name], bound)
    )


def distance(a: Array, b: Array, valid: Array | None = None) -> tuple[float, float]:
    """Largest absolute difference and smallest cosine along the last axis, over the valid positions.

    `valid` is boolean and lies over the leading axes. Arrays of different shape, and a number that is not finite on
    one side only, are infinitely far apart: (inf, -1). Vectors too short to have a direction are judged by their
    difference alone.
    """
    if a.shape != b.shape:
        return float("inf"), -1.0
    left, right = (masked(np.atleast_1d(x).astype(np.float64), valid) for x in (a, b))
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf"), -1.0
    same = ~np.isfinite(left) & (left == right)
    left, right = (np.where(same, 0.0, x) for x in (left, right))
    if left.size == 0:
        return 0.0, 1.0
    if not np.isfinite(left).all():
        return float("inf"), -1.0
    return float(np.abs(left - right).max()), _smallest_cosine(left, right)


def masked(array: NDArray[np.float64], valid: Array | None) -> NDArray[np.float64]:
    """The array with zeros where `valid`, boolean over the leading axes, is false; all of it where that is None."""
    if valid is None:
        return array
    return np.where(valid.reshape(valid.shape + (1,) * (array.ndim - valid.ndim)), array, 0.0)


def _smallest_cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    directed = norms > 1e-8
    if left.shape[-1] < 2 or not directed.any():
        return 1.0
    return float(((left * right).sum(axis=-1)[directed] / norms[directed]).min())
