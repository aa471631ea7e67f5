"""Checkpoint tensors of equal content, such as tied weights that were stored twice, found cheaply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from converter.checkpoints.tensor_file import as_bytes, read_block
from converter.records import TensorInfo
from converter.weights.expressions import Load, WeightRecipe, leaves

_SAMPLE = 4096  # bytes, at the start, in the middle and at the end
_BLOCK = 4 * 2**20


def find_twins(recipes: Iterable[WeightRecipe]) -> dict[Load, Load]:
    """Which checkpoint tensors that the recipes load equal, bit for bit, one that they load earlier.

    Only tensors of one dtype and shape whose samples agree are read whole.
    """
    loads = dict.fromkeys(leaf for recipe in recipes for leaf in leaves(recipe) if isinstance(leaf, Load))
    alike: dict[tuple[str, tuple[int, ...]], list[Load]] = {}
    for load in loads:
        alike.setdefault((load.info.dtype, load.shape), []).append(load)
    twins: dict[Load, Load] = {}
    for group in alike.values():
        if len(group) > 1:
            twins |= _twins_among(group)
    return twins


def _twins_among(group: Iterable[Load]) -> dict[Load, Load]:
    twins: dict[Load, Load] = {}
    seen: dict[bytes, list[Load]] = {}
    for load in group:
        earlier = seen.setdefault(_sample(load.info), [])
        twin = next((other for other in earlier if _equal(load.info, other.info)), None)
        if twin is None:
            earlier.append(load)
        else:
            twins[load] = twin
    return twins


def _sample(info: TensorInfo) -> bytes:
    raw = as_bytes(info)
    last = max(0, info.length - _SAMPLE)
    starts = sorted({0, last // 2, last})
    return b"".join(read_block(raw, start, min(start + _SAMPLE, info.length)).tobytes() for start in starts)


def _equal(one: TensorInfo, other: TensorInfo) -> bool:
    if (one.file, one.offset, one.length) == (other.file, other.offset, other.length):
        return True
    first, second = as_bytes(one), as_bytes(other)
    ends = ((start, min(start + _BLOCK, one.length)) for start in range(0, one.length, _BLOCK))
    return all(np.array_equal(read_block(first, *span), read_block(second, *span)) for span in ends)


def with_twins(recipe: WeightRecipe, twins: Mapping[Load, Load]) -> WeightRecipe:
    """The recipe with each tensor that has an earlier twin replaced by it."""
    if isinstance(recipe, Load):
        return twins.get(recipe, recipe)
    sources = tuple(with_twins(source, twins) for source in recipe.sources)
    return recipe if sources == recipe.sources else recipe.over(*sources)
