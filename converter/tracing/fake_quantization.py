"""Models trained with quantization in view: what they round becomes QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import onnx_ir as ir
import torch
from onnxscript import opset18 as op

# What holds a range of whole numbers; the first that does is taken.
_KINDS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}


def _shapes(values: Any, *settings: Any) -> Any:
    return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)


# torch 2.13 knows what shapes these give by column only, and traces no other quantizer.
for _name in (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
):
    torch.library.register_fake(f"aten::{_name}", _shapes, allow_override=True)


@contextmanager
def settled_quantizers() -> Iterator[None]:
    """torch's modules for training neither observe nor ask whether they should, while tracing.

    Their switches are buffers, whose values no graph can branch on. One that is off in the checkpoint is on in the
    graph, and parity tells.
    """
    # A model that has such modules has imported them.
    home = sys.modules.get("torch.ao.quantization.fake_quantize")
    with ExitStack() as patches:
        for name in ("FakeQuantize", "FusedMovingAvgObsFakeQuantize") if home else ():
            patches.enter_context(patch.object(getattr(home, name), "forward", _round))
        yield


def _round(self: Any, values: torch.Tensor) -> torch.Tensor:
    low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
    if self.is_per_channel:
        return torch.fake_quantize_per_channel_affine(
            values, self.scale, self.zero_point, self.ch_axis, low, high
        )
    return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, low, high)


def by_tensor(self: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Any:
    return _there_and_back(self, _scalar(scale), _scalar(zero_point), quant_min, quant_max)


def by_channel(self: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    return _there_and_back(self, scale, zero_point, quant_min, quant_max, axis=axis)


def _scalar(number: Any) -> Any:
    """A scale of shape (1,) would stand for an axis."""
    if isinstance(number, (int, float)):
        return op.Constant(value=ir.tensor(number))
    return op.Reshape(number, op.Constant(value=ir.tensor([], ir.DataType.INT64)))


def _there_and_back(values: Any, scale: Any, zero_point: Any, low: int, high: int, **axis: int) -> Any:
    """onnxscript 0.7 knows three ranges, and takes a scale of one number for an axis."""
    kind = next((kind for kind, (least, most) in _KINDS.items() if least <= low and high <= most), None)
    if kind is None:
        raise NotImplementedError(
            f"fake quantization to {low}..{high}: only 8 bits have operators everywhere"
        )
    scale, zero_point = op.Cast(scale, to=ir.DataType.FLOAT), op.Cast(zero_point, to=kind)
    narrow = values.dtype != ir.DataType.FLOAT  # the operators of opset 18 take nothing else
    wide = op.Cast(values, to=ir.DataType.FLOAT) if narrow else values
    whole = op.QuantizeLinear(wide, scale, zero_point, **axis)
    if (low, high) != _KINDS[kind]:
        least, most = (op.Constant(value=ir.tensor(bound, kind)) for bound in (low, high))
        whole = op.Clip(whole, least, most)
    rounded = op.DequantizeLinear(whole, scale, zero_point, **axis)
    return op.CastLike(rounded, values) if narrow else rounded


FAKE_QUANTIZATION: Mapping[Any, Any] = {
    torch.ops.aten.fake_quantize_per_tensor_affine.default: by_tensor,
    torch.ops.aten.fake_quantize_per_tensor_affine.tensor_qparams: by_tensor,
    torch.ops.aten.fake_quantize_per_channel_affine.default: by_channel,
}
