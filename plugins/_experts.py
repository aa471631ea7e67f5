"""Mixtures of experts in ONNX. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def products_by_group() -> Iterator[None]:
    """While probing, transformers multiplies with one expert after the other, as it does where torch cannot.

    torch's product of all at once refuses odd widths, and of float32 without values it knows no shapes.
    """
    from transformers.integrations import moe

    with patch.object(moe, "_can_use_grouped_mm", lambda *_, **__: False):
        yield


def experts_in_onnx() -> Mapping[Any, Any]:
    """The lowering of transformers' grouped matrix product, which has one weight for each run of rows."""
    import torch
    import transformers.integrations.moe  # noqa: F401  (defines the op)
    from onnxscript import opset18 as op

    def grouped_matmul(rows: Any, weight: Any, ends: Any) -> Any:
        """(rows, in), (experts, in, out), where each expert's run of rows ends (experts) -> (rows, out)."""
        axis = op.Constant(value_ints=[0])
        bound = op.Constant(value_ints=[0])
        ends, parts = op.Cast(ends, to=7), []
        for expert in range(weight.shape[0]):
            here, behind = (op.Constant(value_ints=[index]) for index in (expert, expert + 1))
            start, bound = bound, op.Slice(ends, here, behind, axis)
            own = op.Squeeze(op.Slice(weight, here, behind, axis), axis)
            parts.append(op.MatMul(op.Slice(rows, start, bound, axis), own))
        return op.Concat(*parts, axis=0)

    return {torch.ops.transformers.grouped_mm_fallback.default: grouped_matmul}
