"""Translations of torch operators that the exporter has none for, whatever the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op


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


OPERATORS: Mapping[Any, Any] = {torch.ops.aten.rsub.Scalar: rsub}
