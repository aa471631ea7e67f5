"""How weights are stored with fewer bits: recipes over the full weights, and the plan of a whole graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converter.arrays import FLOAT32, Array, DType, Region, slices, whole
from converter.recipes import WeightRecipe

if TYPE_CHECKING:
    import onnx_ir as ir

# Full weights read at a time, in bytes. Strips of a wide matrix narrower than this would read their gaps too.
STRIP = 128 * 2**20
_UINT8, _INT8 = np.dtype(np.uint8), np.dtype(np.int8)


@dataclass(frozen=True)
class Blocks:
    """A matrix with a scale for each `size` weights of a column (onnxruntime's MatMulNBits).

    `accuracy_level` 4 lets the kernel quantize activations to 8 bits, block by block; 0 computes in fp32.
    """

    bits: Literal[4, 8]
    size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4


@dataclass(frozen=True)
class Columns:
    """A matrix with a scale for each column, activations quantized whole at run time (MatMulInteger)."""

    signed: bool


Matrix = Blocks | Columns


@dataclass(frozen=True)
class Plan:
    """A whole graph: the format of its matrices, exceptions by initializer, tables by row, halves.

    What is no matrix or table stays as it is; with `half` every float becomes fp16.
    """

    matrices: Matrix | None = None
    exceptions: Mapping[str, Matrix | None] = field(default_factory=dict)
    tables: bool = True
    half: bool = False

    def of(self, name: str) -> Matrix | None:
        """The format of the matrix in this initializer; None leaves it alone."""
        return self.exceptions.get(name, self.matrices)

    @property
    def label(self) -> str:
        if self.half:
            return "fp16"
        form = self.matrices
        if isinstance(form, Blocks):
            kind = "symmetric" if form.symmetric else "asymmetric"
            return f"{form.bits} bits, blocks of {form.size}, {kind}, accuracy level {form.accuracy_level}"
        return f"{'signed' if form and form.signed else 'unsigned'} 8 bits a column, activations a tensor"

    def giving(self, names: Iterable[str], form: Matrix) -> Plan:
        """The same plan, but for these matrices."""
        return replace(self, exceptions={**self.exceptions, **dict.fromkeys(names, form)})

    def apply(self, model: ir.Model) -> None:
        """Turn the weights of a graph into this plan's."""
        from converter.precision.apply import apply_plan

        apply_plan(self, model)

    def to_json(self) -> dict[str, Any]:
        """Plain values, enough to make the same graph again."""
        return asdict(self)


class Quantized(WeightRecipe):
    """One of the arrays that a quantized weight is stored as. Rows are made in strips from the full weight."""

    source: WeightRecipe

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        return (self.source,)

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


def _full(source: WeightRecipe, region: Region) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.empty([stop - start for start, stop in region], np.float32)
    source.fill(region, values)
    return values


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
        return FLOAT32 if self.part == "scales" else _UINT8

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        return BlockQuantized(sources[0], self.format, self.part)

    @property
    def _row_bytes(self) -> int:
        return self.source.shape[0] * 4

    def _rows(self, low: int, high: int) -> Array:
        from onnxruntime.capi import _pybind_state as kernels

        depth, size = self.source.shape[0], self.format.size
        weights = _full(self.source, (*whole((depth,)), (low, high)))
        if depth % size:
            weights = np.pad(weights, ((0, size - depth % size), (0, 0)))
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

    def _empty(self, part: Any, rows: int) -> Array:
        like = BlockQuantized(self.source, self.format, part)
        return np.zeros((rows, *like.shape[1:]), like.dtype)


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
        return _INT8 if self.part == "data" else FLOAT32

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        return RowQuantized(sources[0], self.part)

    @property
    def _row_bytes(self) -> int:
        return self.source.shape[1] * 4

    def _rows(self, low: int, high: int) -> Array:
        values = _full(self.source, ((low, high), *whole(self.source.shape[1:])))
        scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        rows: Array = scales if self.part == "scales" else np.rint(values / scales).astype(np.int8)
        return rows


@dataclass(frozen=True)
class ColumnQuantized(WeightRecipe):
    """A (K, N) matrix with a scale for each column: `data` (K, N), `scales` and `zero_points` (N,).

    Signed weights are symmetric; unsigned ones use their column's whole range.
    """

    source: WeightRecipe
    format: Columns
    part: Literal["data", "scales", "zero_points"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape if self.part == "data" else self.source.shape[1:]

    @property
    def dtype(self) -> DType:
        if self.part == "scales":
            return FLOAT32
        return _INT8 if self.format.signed else _UINT8

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        return (self.source,)

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        return ColumnQuantized(sources[0], self.format, self.part)

    def fill(self, region: Region, out: Array) -> None:
        depth = self.source.shape[0]
        (first, last), columns = (region[0] if self.part == "data" else (0, depth)), region[-1]
        scales, zeros = self._ranges(columns)
        if self.part != "data":
            out[...] = scales if self.part == "scales" else zeros
            return
        limits = (-127, 127) if self.format.signed else (0, 255)
        step = max(1, STRIP // max(1, 4 * (columns[1] - columns[0])))
        for low in range(first, last, step):
            high = min(low + step, last)
            values = np.rint(_full(self.source, ((low, high), columns)) / scales) + zeros
            out[low - first : high - first] = np.clip(values, *limits)

    def _ranges(self, columns: tuple[int, int]) -> tuple[Any, Any]:
        """Scale and zero point of each column, from one pass over the weights."""
        depth, width = self.source.shape[0], columns[1] - columns[0]
        least, most = np.zeros(width, np.float32), np.zeros(width, np.float32)
        step = max(1, STRIP // max(1, 4 * width))
        for low in range(0, depth, step):
            values = _full(self.source, ((low, min(low + step, depth)), columns))
            least, most = np.minimum(least, values.min(axis=0)), np.maximum(most, values.max(axis=0))
        spread = np.maximum(most, -least) / 127 if self.format.signed else (most - least) / 255
        scales = np.where(spread == 0, 1, spread).astype(np.float32)
        zeros = np.zeros(width) if self.format.signed else np.clip(np.rint(-least / scales), 0, 255)
        return scales, zeros.astype(np.float32)
