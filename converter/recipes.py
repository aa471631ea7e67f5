"""How a tensor of a graph comes from tensors of a checkpoint: small expressions, evaluated in row blocks.

Recipes are values: equal recipes are one stored tensor, whatever the initializers are called. Graph passes edit
recipes, never bytes; nothing here holds weights for longer than one block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converter.records import TensorInfo

DType = np.dtype[np.generic]


class WeightRecipe:
    """Base of the expressions. Every one knows the shape and dtype (numpy, ml_dtypes for bfloat16) of its result."""

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def dtype(self) -> DType:
        raise NotImplementedError


@dataclass(frozen=True)
class Parameter(WeightRecipe):
    """A parameter of the model by name, not yet looked up in any checkpoint: what tracing leaves in a graph."""

    name: str
    size: tuple[int, ...]
    kind: DType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> DType:
        return self.kind


@dataclass(frozen=True)
class Load(WeightRecipe):
    """A checkpoint tensor, as stored."""

    info: TensorInfo


@dataclass(frozen=True)
class Transpose(WeightRecipe):
    source: WeightRecipe
    perm: tuple[int, ...]


def bind(recipe: WeightRecipe, mapping: Mapping[str, WeightRecipe]) -> WeightRecipe:
    """Replace every `Parameter` by its recipe over the checkpoint, cast to the dtype the graph expects."""
    raise NotImplementedError
