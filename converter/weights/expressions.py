"""The base of weight recipes, and those whose elements lie in C order: `Load`, `Constant`, `Reshape`.

`converter.recipes` has the others and is what the rest of the package imports from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.arrays import (
    Array,
    DType,
    Region,
    copy_values,
    extent,
    flat_boxes,
    slices,
    whole,
)
from converter.checkpoints.tensor_file import read_into, tensor_dtype
from converter.errors import WeightError
from converter.records import TensorInfo

# What one expression holds besides its result, in bytes: enough for the disk, little enough for the cache.
SCRATCH = 4 * 2**20
# Wanted parts of rows that are this long, in bytes, are read alone, shorter ones with what lies between.
_RUN = 64 * 1024


class WeightRecipe:
    """Base of the expressions. Each knows its shape and its dtype (numpy's, or ml_dtypes' for bfloat16)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def dtype(self) -> DType: ...

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        """The expressions this one is made of."""
        return ()

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        """The same operation on other sources."""
        return self

    @abstractmethod
    def fill(self, region: Region, out: Array) -> None:
        """Write a region of the result into `out`, which has its shape and any strides and dtype."""


class Derived(WeightRecipe):
    """Base of expressions over one other: frozen dataclasses with a field `source`, whose shape and dtype they have."""

    source: WeightRecipe

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        return (self.source,)

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        (source,) = sources
        record: Any = self
        made: WeightRecipe = replace(record, source=source)
        return made


def walk(recipe: WeightRecipe) -> Iterator[WeightRecipe]:
    """An expression and all it is made of, outermost first, then from left to right."""
    yield recipe
    for source in recipe.sources:
        yield from walk(source)


def leaves(recipe: WeightRecipe) -> Iterator[WeightRecipe]:
    """The parameters, checkpoint tensors and constants an expression is made of, from left to right."""
    return (part for part in walk(recipe) if not part.sources)


def origin(*recipes: WeightRecipe) -> str:
    """` (from 'a', 'b')`: the tensors behind expressions, for error messages."""
    found = [leaf for recipe in recipes for leaf in leaves(recipe)]
    names = dict.fromkeys(
        repr(leaf.info.name if isinstance(leaf, Load) else leaf.name)
        for leaf in found
        if isinstance(leaf, Load | Parameter)
    )
    return f" (from {', '.join(list(names)[:4])}{', ...' if len(names) > 4 else ''})" if names else ""


@dataclass(frozen=True)
class Parameter(WeightRecipe):
    """A parameter of the model by name, in no checkpoint yet: what tracing leaves in a graph."""

    name: str
    size: tuple[int, ...]
    kind: DType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> DType:
        return self.kind

    def fill(self, region: Region, out: Array) -> None:
        raise WeightError(
            f"parameter {self.name!r} is not bound to a checkpoint", remedy="bind the graph first"
        )


class _Dense(WeightRecipe):
    """An expression whose elements can be had in C order from any position on."""

    @abstractmethod
    def flat(self, start: int, out: Array) -> None:
        """Fill `out` (C-contiguous, own dtype) with the elements from number `start` on."""

    def fill(self, region: Region, out: Array) -> None:
        self._fill(0, self.shape, region, out)

    def _fill(self, start: int, shape: tuple[int, ...], region: Region, out: Array) -> None:
        complete = region[1:] == whole(shape[1:])
        if (not region or complete) and out.flags.c_contiguous and out.dtype == self.dtype:
            self.flat(start + (region[0][0] * math.prod(shape[1:]) if region else 0), out)
            return
        if not region:
            copy_values(self._scratch(start, ()), out)
            return
        (first, last), rest = region[0], region[1:]
        row = math.prod(shape[1:])
        row_bytes, wanted = row * self.dtype.itemsize, math.prod(extent(rest)) * self.dtype.itemsize
        if row_bytes > SCRATCH or (not complete and wanted >= _RUN):
            for index in range(first, last):
                self._fill(start + index * row, shape[1:], rest, out[(index - first, ...)])
            return
        step = max(1, SCRATCH // max(1, row_bytes))
        for low in range(first, last, step):
            high = min(low + step, last)
            rows = self._scratch(start + low * row, (high - low, *shape[1:]))
            copy_values(rows[(slice(None), *slices(rest))], out[low - first : high - first])

    def _scratch(self, start: int, shape: tuple[int, ...]) -> Array:
        rows: Array = np.empty(shape, self.dtype)
        self.flat(start, rows)
        return rows


@dataclass(frozen=True)
class Load(_Dense):
    """A checkpoint tensor, as stored."""

    info: TensorInfo

    def __post_init__(self) -> None:
        tensor_dtype(self.info)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def dtype(self) -> DType:
        return tensor_dtype(self.info)

    def flat(self, start: int, out: Array) -> None:
        read_into(self.info, start, out)


@dataclass(frozen=True)
class Constant(_Dense):
    """Values that come from no checkpoint, such as a large buffer of the model: C-order bytes."""

    data: bytes
    size: tuple[int, ...]
    kind: DType

    @staticmethod
    def of(array: Array) -> Constant:
        return Constant(np.ascontiguousarray(array).tobytes(), array.shape, array.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> DType:
        return self.kind

    def flat(self, start: int, out: Array) -> None:
        out.reshape(-1)[:] = np.frombuffer(self.data, self.kind, out.size, start * self.kind.itemsize)


@dataclass(frozen=True)
class Reshape(Derived, _Dense):
    """The same elements in C order under another shape of as many elements."""

    source: WeightRecipe
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if math.prod(self.size) != math.prod(self.source.shape):
            raise WeightError(f"cannot reshape {self.source.shape} to {self.size}{origin(self.source)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def flat(self, start: int, out: Array) -> None:
        values, done = out.reshape(-1), 0
        for box in flat_boxes(self.source.shape, start, start + out.size):
            size = extent(box)
            count = math.prod(size)
            self.source.fill(box, values[done : done + count].reshape(size))
            done += count
