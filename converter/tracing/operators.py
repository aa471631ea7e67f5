"""Translations of torch operators that the exporter has none for, whatever the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.core import aten_floor_divide


def rsub(self: Any, other: Any, alpha: Any = 1) -> Any:
    """`other - alpha * self`: `1.0 - mask`, of whole numbers too.

    torch 2.13 takes it apart into `sub(1.0, mask)`, and then finds no overload of `sub` that takes a number first.
    """
    if self.dtype.is_integer() and (isinstance(other, float) or isinstance(alpha, float)):
        self = op.Cast(self, to=ir.DataType.FLOAT)  # torch's default dtype, as its promotion has it
        self.dtype = ir.DataType.FLOAT

    def number(value: float) -> Any:
        return op.Constant(value=ir.tensor(np.array(value, self.dtype.numpy())))

    scaled = self if alpha == 1 else op.Mul(self, number(alpha))
    return op.Sub(number(other), scaled)


def repeat_interleave(self: Any, repeats: Any, dim: int | None = None, output_size: Any = None) -> Any:
    """Each entry along `dim` so many times in a row.

    onnxscript 0.7 has it, but where the number is known at run time only, it repeats along the axis before (SAM's
    points by image): the graph fails, or at a batch of 1 is right by chance.
    """
    if dim is None:
        self, dim, rank = op.Reshape(self, op.Constant(value_ints=[-1])), 0, 1
    else:
        rank = len(self.shape)
    place = dim % rank
    count = op.Constant(value_int=repeats) if isinstance(repeats, int) else repeats
    one = op.Constant(value_ints=[1])
    times = (
        [one] * (place + 1) + [op.Reshape(count, op.Constant(value_ints=[-1]))] + [one] * (rank - place - 1)
    )
    repeated = op.Expand(op.Unsqueeze(self, op.Constant(value_ints=[place + 1])), op.Concat(*times, axis=0))
    rest = op.Constant(value_ints=[-1])
    shape = op.Concat(op.Shape(self, end=place), rest, op.Shape(self, start=place + 1), axis=0)
    return op.Reshape(repeated, shape)


def floor_divide(self: Any, other: Any) -> Any:
    """As onnxscript has it, which asks a number on the left (`1.0 // scales`, I-BERT's) for its dtype."""
    if isinstance(self, int | float):
        number = op.Constant(value=ir.tensor(np.array(self, other.dtype.numpy())))
        number.dtype = other.dtype
        self = number
    return aten_floor_divide(self, other)


OPERATORS: Mapping[Any, Any] = {
    torch.ops.aten.floor_divide.default: floor_divide,
    torch.ops.aten.rsub.Scalar: rsub,
    torch.ops.aten.repeat_interleave.self_int: repeat_interleave,
}
