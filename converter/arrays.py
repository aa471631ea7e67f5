"""Arithmetic of array regions, and copying values into strided arrays at memory speed. Knows numpy only.

A region is a (start, stop) pair for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
DType = np.dtype[np.generic]
Region = tuple[tuple[int, int], ...]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)

# A square of this side, read along one axis and written along the other, stays within a core's nearest cache.
_TILE = 128


def whole(shape: Sequence[int]) -> Region:
    """The region that is the whole array."""
    return tuple((0, size) for size in shape)


def extent(region: Region) -> tuple[int, ...]:
    """The shape of a region."""
    return tuple(stop - start for start, stop in region)


def slices(region: Region) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in region)


def row_blocks(shape: Sequence[int], itemsize: int, max_bytes: int) -> Iterator[Region]:
    """Cut an array, in C order, into contiguous regions of at most `max_bytes`, one element at least.

    They are runs of whole rows (axis 0); only a row larger than `max_bytes` is cut itself.
    """
    if not shape:
        yield ()
        return
    row_bytes = math.prod(shape[1:]) * itemsize
    if row_bytes <= max_bytes:
        step = max(1, max_bytes // max(1, row_bytes))
        for start in range(0, shape[0], step):
            yield ((start, min(start + step, shape[0])), *whole(shape[1:]))
        return
    for row in range(shape[0]):
        for rest in row_blocks(shape[1:], itemsize, max_bytes):
            yield ((row, row + 1), *rest)


def flat_boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[Region]:
    """The elements `start` to `stop` of an array, counted in C order, as contiguous regions in that order."""
    if start >= stop:
        return
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:])
    (first, head), (last, tail) = divmod(start, row), divmod(stop, row)
    if first == last:
        yield from _within_row(shape, first, head, tail)
        return
    if head:
        yield from _within_row(shape, first, head, row)
        first += 1
    if first < last:
        yield ((first, last), *whole(shape[1:]))
    yield from _within_row(shape, last, 0, tail)


def _within_row(shape: Sequence[int], row: int, start: int, stop: int) -> Iterator[Region]:
    for rest in flat_boxes(shape[1:], start, stop):
        yield ((row, row + 1), *rest)


def copy_values(values: Array, out: Array) -> None:
    """Copy `values` into `out` of equal shape, whatever its strides, converting to its dtype.

    Raises OverflowError where a finite number becomes infinite in `out`'s dtype.
    """
    fast = min(range(out.ndim), key=lambda axis: (out.shape[axis] == 1, out.strides[axis]), default=-1)
    last = out.ndim - 1
    if out.ndim < 2 or fast == last or out.shape[fast] * out.shape[last] < _TILE * _TILE:
        _convert(values, out)
        return
    # Square by square, in the plane of the axes that are contiguous in `out` and in `values`.
    others = [range(size) for axis, size in enumerate(out.shape) if axis not in (fast, last)]
    source, target = np.moveaxis(values, fast, -2), np.moveaxis(out, fast, -2)
    for index in product(*others):
        _convert_turned(source[index], target[index])


def _convert_turned(source: Array, target: Array) -> None:
    rows, columns = source.shape
    for row, column in product(range(0, rows, _TILE), range(0, columns, _TILE)):
        tile = slice(row, row + _TILE), slice(column, column + _TILE)
        _convert(np.ascontiguousarray(source[tile].T), target[tile].T)


def _convert(values: Array, out: Array) -> None:
    if values.dtype == out.dtype:
        np.copyto(out, values)
    elif values.dtype == BFLOAT16 and out.dtype == FLOAT32:
        # bfloat16 is the upper half of a float32; a shift is twice as fast as ml_dtypes' conversion.
        np.left_shift(values.view(np.uint16), 16, out=out.view(np.uint32), dtype=np.uint32, casting="unsafe")
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, values, casting="unsafe")
        if out.dtype in (FLOAT16, BFLOAT16, FLOAT32):
            _refuse_overflow(values, out)


def _refuse_overflow(values: Array, out: Array) -> None:
    infinite = np.isinf(out)
    if infinite.any():
        finite = infinite & np.isfinite(values)
        if finite.any():
            largest = np.abs(values[finite].astype(np.float64)).max()
            raise OverflowError(f"{largest:.4g} is beyond the range of {out.dtype.name}")
