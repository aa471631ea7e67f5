"""Weight recipes that rearrange, convert or combine others, evaluated without intermediate copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.arrays import Array, DType, Region, copy_values, extent
from converter.errors import WeightError
from converter.weights.expressions import SCRATCH, Derived, WeightRecipe, origin


@dataclass(frozen=True)
class Transpose(Derived):
    """Axis `i` of the result is axis `perm[i]` of the source."""

    source: WeightRecipe
    perm: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.perm) != list(range(len(self.source.shape))):
            raise WeightError(f"cannot permute {self.source.shape} by {self.perm}{origin(self.source)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape[axis] for axis in self.perm)

    def fill(self, region: Region, out: Array) -> None:
        back = tuple(self.perm.index(axis) for axis in range(len(self.perm)))
        self.source.fill(tuple(region[axis] for axis in back), out.transpose(back))


@dataclass(frozen=True)
class Cast(Derived):
    """The values in another dtype. A finite value that would become infinite is an error on evaluation."""

    source: WeightRecipe
    kind: DType

    @property
    def dtype(self) -> DType:
        return self.kind

    def fill(self, region: Region, out: Array) -> None:
        if out.dtype == self.kind:
            self.source.fill(region, out)
            return
        values: Array = np.empty(extent(region), self.kind)
        self.source.fill(region, values)
        copy_values(values, out)


@dataclass(frozen=True)
class Slice(Derived):
    """From `start` to `stop` along one axis."""

    source: WeightRecipe
    axis: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        shape = self.source.shape
        if not 0 <= self.axis < len(shape) or not 0 <= self.start <= self.stop <= shape[self.axis]:
            raise WeightError(
                f"cannot take {self.start}:{self.stop} along axis {self.axis} of {shape}{origin(self.source)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.source.shape
        return (*shape[: self.axis], self.stop - self.start, *shape[self.axis + 1 :])

    def fill(self, region: Region, out: Array) -> None:
        low, high = region[self.axis]
        moved = (low + self.start, high + self.start)
        self.source.fill((*region[: self.axis], moved, *region[self.axis + 1 :]), out)


@dataclass(frozen=True)
class _Joined(WeightRecipe):
    """Several tensors as one, in order along `axis`."""

    parts: tuple[WeightRecipe, ...]
    axis: int

    @property
    def dtype(self) -> DType:
        return self.parts[0].dtype

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        return self.parts

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        return type(self)(sources, self.axis)


@dataclass(frozen=True)
class Concat(_Joined):
    """Tensors of one dtype joined along an axis they may differ in."""

    def __post_init__(self) -> None:
        axis = self.axis
        alike = {(*part.shape[:axis], -1, *part.shape[axis + 1 :]) for part in self.parts}
        rank = min((len(part.shape) for part in self.parts), default=0)
        if len(alike) != 1 or not 0 <= axis < rank or len({part.dtype for part in self.parts}) != 1:
            raise _cannot_join("concatenate", self.parts, axis)

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        total = sum(part.shape[self.axis] for part in self.parts)
        return (*first[: self.axis], total, *first[self.axis + 1 :])

    def fill(self, region: Region, out: Array) -> None:
        low, high = region[self.axis]
        start = 0
        for part in self.parts:
            size = part.shape[self.axis]
            first, last = max(low, start), min(high, start + size)
            if first < last:
                inner = (*region[: self.axis], (first - start, last - start), *region[self.axis + 1 :])
                place = (*[slice(None)] * self.axis, slice(first - low, last - low))
                part.fill(inner, out[place])
            start += size


@dataclass(frozen=True)
class Stack(_Joined):
    """Tensors of one shape and dtype side by side along a new axis."""

    def __post_init__(self) -> None:
        alike = {(part.shape, part.dtype) for part in self.parts}
        if len(alike) != 1 or not 0 <= self.axis <= len(self.parts[0].shape):
            raise _cannot_join("stack", self.parts, self.axis)

    @property
    def shape(self) -> tuple[int, ...]:
        inner = self.parts[0].shape
        return (*inner[: self.axis], len(self.parts), *inner[self.axis :])

    def fill(self, region: Region, out: Array) -> None:
        low, high = region[self.axis]
        inner = (*region[: self.axis], *region[self.axis + 1 :])
        side_by_side = np.moveaxis(out, self.axis, 0)
        for index in range(low, high):
            self.parts[index].fill(inner, side_by_side[index - low, ...])


def _cannot_join(verb: str, parts: tuple[WeightRecipe, ...], axis: int) -> WeightError:
    seen = ", ".join(dict.fromkeys(f"{part.shape} {part.dtype}" for part in parts)) or "nothing"
    return WeightError(f"cannot {verb} {seen} along axis {axis}{origin(*parts)}")


@dataclass(frozen=True)
class AddLowRank(WeightRecipe):
    """`base + scale * b @ a`, computed in float32: a matrix with a low-rank adapter merged into it.

    base (out, in), a (rank, in), b (out, rank); the result has the dtype of `base`.
    Hu et al., LoRA, https://arxiv.org/abs/2106.09685
    """

    base: WeightRecipe
    a: WeightRecipe
    b: WeightRecipe
    scale: float

    def __post_init__(self) -> None:
        base, a, b = self.base.shape, self.a.shape, self.b.shape
        if not len(base) == len(a) == len(b) == 2 or base != (b[0], a[1]) or a[0] != b[1]:
            raise WeightError(f"cannot add {b} @ {a} to {base}{origin(self.base, self.a, self.b)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> DType:
        return self.base.dtype

    @property
    def sources(self) -> tuple[WeightRecipe, ...]:
        return (self.base, self.a, self.b)

    def over(self, *sources: WeightRecipe) -> WeightRecipe:
        base, a, b = sources
        return AddLowRank(base, a, b, self.scale)

    def fill(self, region: Region, out: Array) -> None:
        (low, high), columns = region
        step = max(1, SCRATCH // max(1, 4 * (columns[1] - columns[0])))
        a = _float32(self.a, ((0, self.a.shape[0]), columns))
        for first in range(low, high, step):
            rows = (first, min(first + step, high))
            values = _float32(self.base, (rows, columns))
            values += np.float32(self.scale) * (_float32(self.b, (rows, (0, self.b.shape[1]))) @ a)
            place = out[first - low : rows[1] - low]
            if out.dtype == self.dtype:
                copy_values(values, place)
            else:
                rounded: Array = np.empty(values.shape, self.dtype)
                copy_values(values, rounded)
                copy_values(rounded, place)


def _float32(recipe: WeightRecipe, region: Region) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.empty(extent(region), np.float32)
    recipe.fill(region, values)
    return values
