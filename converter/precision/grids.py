"""Weights that lie on the grid of a format already, as training with few bits in view leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converter.arrays import whole
from converter.precision.formats import Blocks, Plan
from converter.precision.packed import BlockQuantized, read_full
from converter.recipes import WeightRecipe

# Matrices looked at, and columns of each: a grid shows in a few.
_MATRICES, _COLUMNS = 8, 64
# Of a block's largest weight: what bfloat16 moves a weight of the grid by at most, 2**-8, and the scale as much. Half a
# step of the grid, which is how far other weights lie from it, is 2**-4.
_ROUNDING = 2.0**-7


def trained_for(plans: Sequence[Any], matrices: Sequence[WeightRecipe]) -> list[Any]:
    """The plans, but where most matrices lie on the grid of 4-bit blocks: these, and what may mend the others.

    Such training rounds to blocks around zero, of one scale each: -8 to 7 (32 weights a block are llama.cpp's Q4_0)
    or -7 to 7, of which BitNet's three values are a part. For ordinary weights blocks with a zero point err less, so
    that plans have those.
    """
    seen = matrices[:: -(-len(matrices) // _MATRICES) or 1]
    for plan in plans:
        form = plan.matrices if isinstance(plan, Plan) else None
        if not isinstance(form, Blocks) or form.bits != 4:
            continue
        for even in (replace(form, symmetric=True, narrow=narrow) for narrow in (False, True)):
            if 2 * sum(lies_on(recipe, even) for recipe in seen) > len(seen):
                return [replace(plan, matrices=even), *plans[-1:]]
    return list(plans)


def lies_on(recipe: WeightRecipe, form: Blocks) -> bool:
    """Whether the first columns of a (K, N) matrix come back from symmetric 4-bit blocks as they were."""
    depth, width = recipe.shape
    columns = (0, min(width, _COLUMNS))
    data, scales = (_rows(BlockQuantized(recipe, form, part), columns) for part in ("data", "scales"))
    levels = np.stack((data & 15, data >> 4), axis=-1).reshape(*scales.shape, form.size) - 8.0
    back = (levels * scales[..., None]).reshape(len(scales), -1)[:, :depth]
    bounds = np.repeat(np.abs(scales) * (8 * _ROUNDING), form.size, axis=1)[:, :depth]
    return bool((np.abs(back - read_full(recipe, ((0, depth), columns)).T) <= bounds).all())


def _rows(recipe: WeightRecipe, rows: tuple[int, int]) -> np.ndarray[Any, Any]:
    out: np.ndarray[Any, Any] = np.empty((rows[1] - rows[0], *recipe.shape[1:]), recipe.dtype)
    recipe.fill((rows, *whole(recipe.shape[1:])), out)
    return out
