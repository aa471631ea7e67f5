"""Recipes of matrices with a scale for each column, and of matrices whose rows are multiplied by factors first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from converter.arrays import FLOAT32, Array, DType, Region
from converter.precision import packed
from converter.precision.formats import Columns
from converter.precision.packed import INT8, UINT8, read_full
from converter.recipes import Constant, Derived, WeightRecipe


@dataclass(frozen=True)
class Scaled(Derived):
    """A (K, N) matrix, each row times its factor; `factors` (K,) in fp32."""

    source: WeightRecipe
    factors: Constant

    def fill(self, region: Region, out: Array) -> None:
        low, high = region[0]
        factors = np.frombuffer(self.factors.data, np.float32)[low:high]
        out[...] = read_full(self.source, region) * factors[:, None]


@dataclass(frozen=True)
class ColumnQuantized(Derived):
    """A (K, N) matrix with a scale for each column: `data` (K, N), `scales` and `zero_points` (N,).

    Signed weights are symmetric; unsigned ones use their column's whole range. With one scale for the whole matrix,
    `scales` and `zero_points` are scalars.
    """

    source: WeightRecipe
    format: Columns
    part: Literal["data", "scales", "zero_points"]

    @property
    def shape(self) -> tuple[int, ...]:
        if self.part == "data":
            return self.source.shape
        return self.source.shape[1:] if self.format.per_channel else ()

    @property
    def dtype(self) -> DType:
        if self.part == "scales":
            return FLOAT32
        return INT8 if self.format.signed else UINT8

    def fill(self, region: Region, out: Array) -> None:
        scales, zeros = _scales(self.source, self.format)
        if region and self.format.per_channel:
            scales, zeros = (values[slice(*region[-1])] for values in (scales, zeros))
        if self.part != "data":
            out[...] = scales if self.part == "scales" else zeros
            return
        (first, last), columns = region
        top = 127 if self.format.signed else 255
        limits = (-top if self.format.signed else 0, top)
        for low, high in _strips(first, last, columns):
            values = np.rint(read_full(self.source, ((low, high), columns)) / scales) + zeros
            out[low - first : high - first] = np.clip(values, *limits)


@lru_cache(maxsize=4)  # a matrix is written in several blocks, and its scales with them
def _scales(source: WeightRecipe, form: Columns) -> tuple[Any, Any]:
    """Scale and zero point of each column, from one pass over the weights; of the whole matrix, scalars."""
    depth, width = source.shape
    least, most = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for low, high in _strips(0, depth, (0, width)):
        values = read_full(source, ((low, high), (0, width)))
        least, most = np.minimum(least, values.min(axis=0)), np.maximum(most, values.max(axis=0))
    if not form.per_channel:
        least, most = least.min(), most.max()
    if form.signed:
        spread = np.maximum(most, -least) / (63 if form.reduce_range else 127)
    else:
        spread = (most - least) / (127 if form.reduce_range else 255)
    scales = np.where(spread == 0, 1, spread).astype(np.float32)
    zeros = np.zeros_like(scales) if form.signed else np.clip(np.rint(-least / scales), 0, 255)
    return scales, np.asarray(zeros, np.float32)


def _strips(first: int, last: int, columns: tuple[int, int]) -> Iterator[tuple[int, int]]:
    step = max(1, packed.STRIP // max(1, 4 * (columns[1] - columns[0])))
    return ((low, min(low + step, last)) for low in range(first, last, step))


def row_peaks(recipe: WeightRecipe) -> Any:
    """The largest magnitude in each row of a (K, N) matrix, read strip by strip: (K,) fp32."""
    depth, width = recipe.shape
    return np.concatenate(
        [
            np.abs(read_full(recipe, ((low, high), (0, width)))).max(axis=1)
            for low, high in _strips(0, depth, (0, width))
        ]
    )
