"""How a tensor of a graph comes from tensors of a checkpoint: small expressions, evaluated in blocks.

Recipes are values: equal recipes are one stored tensor, whatever the initializers are called. Graph passes
edit recipes, never bytes; nothing here holds weights for longer than one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
from onnx_ir._core import TensorBase

from converter.arrays import BFLOAT16, FLOAT16, FLOAT32, Array, DType, Region, extent, row_blocks, whole
from converter.errors import WeightError
from converter.weights.expressions import (
    Constant,
    Derived,
    Load,
    Parameter,
    Reshape,
    WeightRecipe,
    leaves,
    origin,
    walk,
)
from converter.weights.operators import AddLowRank, Cast, Concat, Slice, Stack, Transpose

__all__ = [
    "AddLowRank",
    "Cast",
    "Concat",
    "Constant",
    "Derived",
    "Load",
    "Parameter",
    "RecipeTensor",
    "Reshape",
    "Slice",
    "Stack",
    "Transpose",
    "WeightRecipe",
    "bind",
    "blocks",
    "evaluate",
    "leaves",
    "read",
    "simplify",
    "walk",
]


_FLOATS = {BFLOAT16, FLOAT16, FLOAT32, np.dtype(np.float64)}


def bind(recipe: WeightRecipe, mapping: Mapping[str, WeightRecipe]) -> WeightRecipe:
    """Replace every `Parameter` by its recipe over the checkpoint, cast to the dtype the graph expects.

    The result is in its simplest form. Raises WeightError for a parameter that `mapping` lacks or gives
    another shape.
    """
    if isinstance(recipe, Parameter):
        return simplify(Cast(_find(recipe, mapping), recipe.dtype))
    if not recipe.sources:
        return recipe
    return _simpler(recipe.over(*(bind(source, mapping) for source in recipe.sources)))


def _find(parameter: Parameter, mapping: Mapping[str, WeightRecipe]) -> WeightRecipe:
    found = mapping.get(parameter.name)
    if found is None:
        raise WeightError(
            f"parameter {parameter.name!r} has no tensor in the checkpoint",
            remedy="is this the checkpoint of the architecture and task that are being converted?",
        )
    if found.shape != parameter.shape:
        raise WeightError(
            f"parameter {parameter.name!r} has shape {parameter.shape}, "
            f"the checkpoint gives {found.shape}{origin(found)}",
            remedy="config.json and the weights do not belong together: download both again",
        )
    if not _convertible(found.dtype, parameter.dtype):
        raise WeightError(
            f"parameter {parameter.name!r} is {parameter.dtype}, "
            f"the checkpoint stores {found.dtype}{origin(found)}",
            remedy="a quantized checkpoint is not converted: its values mean nothing without their scales",
        )
    return found


def _convertible(stored: DType, wanted: DType) -> bool:
    """Between the float types of 16 bits and more; other types only where nothing is lost."""
    return {stored, wanted} <= _FLOATS or (stored.kind == wanted.kind and np.can_cast(stored, wanted, "safe"))


def simplify(recipe: WeightRecipe) -> WeightRecipe:
    """The simplest expression of the same value, so that equal values are equal recipes."""
    if not recipe.sources:
        return recipe
    return _simpler(recipe.over(*(simplify(source) for source in recipe.sources)))


def _simpler(recipe: WeightRecipe) -> WeightRecipe:
    """Simplify the outermost operation of a recipe whose sources are simple. Casts move outwards."""
    match recipe:
        case Transpose() | Reshape() | Slice() if isinstance(recipe.source, Cast):
            return _simpler(Cast(_simpler(recipe.over(recipe.source.source)), recipe.source.kind))
        case Cast():
            return _simpler_cast(recipe)
        case Transpose(Transpose(inner, first), second):
            return _simpler(Transpose(inner, tuple(first[axis] for axis in second)))
        case Transpose(source, perm) if perm == tuple(range(len(perm))):
            return source
        case Reshape(Reshape(inner), size):
            return _simpler(Reshape(inner, size))
        case Slice(Slice(inner, inner_axis, offset), axis, start, stop) if axis == inner_axis:
            return _simpler(Slice(inner, axis, offset + start, offset + stop))
        case Reshape(source) | Slice(source) if source.shape == recipe.shape:
            return source
        case Concat((only,)):
            return only
    return recipe


def _simpler_cast(recipe: Cast) -> WeightRecipe:
    source = recipe.source
    if isinstance(source, Cast) and np.can_cast(source.source.dtype, source.kind, "safe"):
        source = source.source  # the inner cast lost nothing
    return source if source.dtype == recipe.kind else Cast(source, recipe.kind)


def blocks(recipe: WeightRecipe, max_bytes: int) -> Iterator[Array]:
    """Evaluate a bound recipe as consecutive C-contiguous blocks, each of at most `max_bytes`.

    A block is a run of rows (axis 0); of a row larger than `max_bytes` it is a part, with leading axes of
    size 1. Concatenated in order, the blocks' elements are the tensor's. Memory: one block and a few times
    `converter.weights.expressions.SCRATCH`. Raises WeightError where a value does not fit the dtype, CheckpointError
    where the checkpoint cannot be read.
    """
    for region in row_blocks(recipe.shape, recipe.dtype.itemsize, max_bytes):
        block: Array = np.empty(extent(region), recipe.dtype)
        evaluate(recipe, region, block)
        yield block


def evaluate(recipe: WeightRecipe, region: Region, out: Array) -> None:
    """Fill `out` with one region of a bound recipe. Errors as for `blocks`."""
    try:
        recipe.fill(region, out)
    except OverflowError as error:
        raise WeightError(
            f"a weight cannot be stored as {recipe.dtype.name}: {error}{origin(recipe)}",
            remedy="convert with --dtype fp32 or bf16, which hold larger values",
        ) from error


def read(recipe: WeightRecipe) -> Array:
    """The whole value of a bound recipe: for small tensors."""
    out: Array = np.empty(recipe.shape, recipe.dtype)
    evaluate(recipe, whole(recipe.shape), out)
    return out


class RecipeTensor(TensorBase):
    """What stands in a graph for a weight: name, shape and dtype as any tensor's, a recipe for its data."""

    def __init__(self, recipe: WeightRecipe, name: str | None = None) -> None:
        super().__init__(name=name)
        self.recipe = recipe
        self.raw = recipe
        self.dtype = ir.DataType.from_numpy(recipe.dtype)
        self.shape = ir.Shape(recipe.shape)

    def numpy(self) -> NoReturn:
        raise WeightError(
            f"{self.name!r} was asked for its values: weights are read only when they are written",
            remedy="a graph pass may edit the recipe (RecipeTensor.recipe); it may not read weights",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self.numpy()

    def __dlpack__(self, *, stream: Any = None) -> NoReturn:
        self.numpy()

    def __dlpack_device__(self) -> NoReturn:
        self.numpy()

    def tobytes(self) -> NoReturn:
        self.numpy()

    def __repr__(self) -> str:
        return f"RecipeTensor<{self.dtype},{self.shape}>({self.recipe!r}, name={self.name!r})"
