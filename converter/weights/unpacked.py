"""Weights of which a byte of the checkpoint holds several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.arrays import FLOAT32, Array, DType, Region, extent
from converter.weights.expressions import Derived, WeightRecipe

PER_BYTE = 4


@dataclass(frozen=True)
class Ternary(Derived):
    """-1, 0 or 1 from two bits each, in float32. The lowest bits of all rows come first, then the next (BitNet)."""

    source: WeightRecipe

    @property
    def shape(self) -> tuple[int, ...]:
        rows, *rest = self.source.shape
        return (PER_BYTE * rows, *rest)

    @property
    def dtype(self) -> DType:
        return FLOAT32

    def fill(self, region: Region, out: Array) -> None:
        (low, high), rest = region[0], region[1:]
        rows = self.source.shape[0]
        for place in range(PER_BYTE):
            start, stop = max(low, place * rows), min(high, (place + 1) * rows)
            if start < stop:
                packed = np.empty((stop - start, *extent(rest)), np.uint8)
                self.source.fill(((start - place * rows, stop - place * rows), *rest), packed)
                out[start - low : stop - low] = ((packed >> 2 * place) & 3).astype(np.int8) - 1
