"""Recipes of weights in blocks and rows of few bits, over the full weights, made strip by strip."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from converter.arrays import FLOAT32, Array, DType, Region, slices, whole
from converter.precision.formats import Blocks, NormalFloat
from converter.recipes import Derived, WeightRecipe

# Full weights read at a time, in bytes. Strips of a wide matrix narrower than this would read their gaps too.
STRIP = 128 * 2**20
UINT8, INT8 = np.dtype(np.uint8), np.dtype(np.int8)
BNB_KINDS = {"fp4": 0, "nf4": 1}


def read_full(source: WeightRecipe, region: Region) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A region of the full weights in fp32."""
    values = np.empty([stop - start for start, stop in region], np.float32)
    source.fill(region, values)
    return values


class Quantized(Derived):
    """One of the arrays that a quantized weight is stored as. Rows are made in strips from the full weight."""

    def fill(self, region: Region, out: Array) -> None:
        (first, last), rest = region[0], region[1:]
        step = max(1, STRIP // max(1, self._row_bytes))
        for low in range(first, last, step):
            high = min(low + step, last)
            out[low - first : high - first] = self._rows(low, high)[(slice(None), *slices(rest))]

    @property
    @abstractmethod
    def _row_bytes(self) -> int:
        """Bytes of full weights behind one row of this array."""

    @abstractmethod
    def _rows(self, low: int, high: int) -> Array:
        """Rows `low` to `high` of this array."""


@dataclass(frozen=True)
class BlockQuantized(Quantized):
    """Columns of a (K, N) matrix in blocks: `data` (N, blocks, bytes), `scales` and `zero_points` (N, ...)."""

    source: WeightRecipe
    format: Blocks
    part: Literal["data", "scales", "zero_points"]

    @property
    def shape(self) -> tuple[int, ...]:
        depth, width = self.source.shape
        blocks, packed = -(-depth // self.format.size), 8 // self.format.bits
        sizes = {
            "data": (width, blocks, self.format.size // packed),
            "scales": (width, blocks),
            "zero_points": (width, -(-blocks // packed)),
        }
        return sizes[self.part]

    @property
    def dtype(self) -> DType:
        return FLOAT32 if self.part == "scales" else UINT8

    @property
    def _row_bytes(self) -> int:
        return self.source.shape[0] * 4

    def _rows(self, low: int, high: int) -> Array:
        from onnxruntime.capi import _pybind_state as kernels

        depth, size = self.source.shape[0], self.format.size
        weights = read_full(self.source, (*whole((depth,)), (low, high)))
        if depth % size:
            weights = np.pad(weights, ((0, size - depth % size), (0, 0)))
        if self.format.narrow:
            return self._narrow(weights)
        parts = {part: self._empty(part, high - low) for part in ("data", "scales", "zero_points")}
        kernel = kernels.quantize_matmul_8bits if self.format.bits == 8 else kernels.quantize_matmul_4bits
        kernel(
            parts["data"],
            weights,
            parts["scales"],
            parts["zero_points"],
            size,
            high - low,
            depth,
            self.format.symmetric,
        )
        return parts[self.part]

    def _narrow(self, weights: np.ndarray[Any, np.dtype[np.float32]]) -> Array:
        """As the kernels' blocks, whose middle is 8, but with as many steps above it as below."""
        blocks = weights.T.reshape(weights.shape[1], -1, self.format.size)
        scales: Array = np.abs(blocks).max(axis=-1) / np.float32(7)
        if self.part == "scales":
            return scales
        levels = np.rint(blocks / np.where(scales, scales, 1)[..., None]).astype(np.int8) + 8
        packed: Array = (levels[..., ::2] | levels[..., 1::2] << 4).astype(np.uint8)
        return packed

    def _empty(self, part: Any, rows: int) -> Array:
        like = BlockQuantized(self.source, self.format, part)
        return np.zeros((rows, *like.shape[1:]), like.dtype)


@dataclass(frozen=True)
class NormalFloatQuantized(Derived):
    """Columns of a (K, N) matrix end to end, in 4-bit floats: `data` (K * N / 2,), `scales` (K * N / size,)."""

    source: WeightRecipe
    format: NormalFloat
    part: Literal["data", "scales"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (-(-math.prod(self.source.shape) // self._step),)

    @property
    def _step(self) -> int:
        """Weights behind one element of this array."""
        return 2 if self.part == "data" else self.format.size

    @property
    def dtype(self) -> DType:
        return UINT8 if self.part == "data" else FLOAT32

    def fill(self, region: Region, out: Array) -> None:
        ((first, last),) = region
        depth, width = self.source.shape
        # Columns that fill whole blocks and whole bytes.
        unit = math.lcm(self.format.size, 2)
        step = unit // math.gcd(unit, depth)
        step *= max(1, STRIP // (4 * depth * step))
        for low in range(0, width, step):
            high = min(low + step, width)
            start, stop = low * depth // self._step, -(-high * depth // self._step)
            if stop > first and start < last:
                made = self._columns(low, high)
                begin, end = max(start, first), min(stop, last)
                out[begin - first : end - first] = made[begin - start : end - start]

    def _columns(self, low: int, high: int) -> Array:
        from onnxruntime.capi import _pybind_state as kernels

        depth = self.source.shape[0]
        weights = np.ascontiguousarray(read_full(self.source, (*whole((depth,)), (low, high))).T)
        data = np.zeros(-(-weights.size // 2), np.uint8)
        scales = np.zeros(-(-weights.size // self.format.size), np.float32)
        kind = BNB_KINDS[self.format.kind]
        kernels.quantize_matmul_bnb4(data, weights, scales, self.format.size, kind, high - low, depth)
        made: Array = data if self.part == "data" else scales
        return made


@dataclass(frozen=True)
class RowQuantized(Quantized):
    """Rows of a (rows, width) table, symmetric in 8 bits: `data` int8, `scales` (rows, 1)."""

    source: WeightRecipe
    part: Literal["data", "scales"]

    @property
    def shape(self) -> tuple[int, ...]:
        rows, width = self.source.shape
        return (rows, width if self.part == "data" else 1)

    @property
    def dtype(self) -> DType:
        return INT8 if self.part == "data" else FLOAT32

    @property
    def _row_bytes(self) -> int:
        return self.source.shape[1] * 4

    def _rows(self, low: int, high: int) -> Array:
        values = read_full(self.source, ((low, high), *whole(self.source.shape[1:])))
        scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        rows: Array = scales if self.part == "scales" else np.rint(values / scales).astype(np.int8)
        return rows
