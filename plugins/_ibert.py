"""I-BERT trained with 8 bits in view (`quant_mode`): its arithmetic in torch alone, to trace. Not a plugin itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    import torch


@contextmanager
def whole_arithmetic() -> Iterator[None]:
    """While tracing, what transformers takes apart in numpy, compares in Python or makes of numbers is tensors."""
    import torch
    from transformers.models.ibert import quant_modules

    def rounded(ctx: Any, values: torch.Tensor, bits: int, percentile: bool, scale: torch.Tensor) -> Any:
        whole = quant_modules.linear_quantize(values, scale, scale.new_zeros(scale.shape))
        return whole.clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 2)

    normalise = quant_modules.IntLayerNorm.forward

    def normalised(self: Any, states: torch.Tensor, scale: torch.Tensor | None = None) -> Any:
        self.dim_sqrt = states.new_full((), states.shape[2]).sqrt()
        return normalise(self, states, scale)

    # Tracing loses sight of a parameter behind `.data`.
    seen = property(torch.Tensor.detach, torch._C.TensorBase.data.__set__)  # type: ignore[attr-defined]
    with (
        patch.object(torch.Tensor, "data", seen),
        patch.object(quant_modules, "batch_frexp", mantissa_and_exponent),
        patch.object(quant_modules, "symmetric_linear_quantization_params", scale_of),
        patch.object(quant_modules.SymmetricQuantFunction, "forward", staticmethod(rounded)),
        patch.object(quant_modules.IntLayerNorm, "forward", normalised),
    ):
        yield


def mantissa_and_exponent(inputs: torch.Tensor, max_bit: int = 31) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, e) of float64 numbers, so that m / 2**e is each of them to `max_bit` bits; m is rounded half away from zero.

    What `batch_frexp` of transformers gives, as float64.
    """
    import torch

    sizes = inputs.abs()
    exponents = max_bit - 1 - torch.floor(torch.log2(sizes.clamp(min=torch.finfo(torch.float64).tiny)))
    return torch.sign(inputs) * torch.floor(sizes * 2.0**exponents + 0.5), exponents


def scale_of(num_bits: int, low: torch.Tensor, high: torch.Tensor, per_channel: bool = False) -> Any:
    """The step of symmetric quantization that reaches both bounds. What transformers' function of that use gives."""
    import torch

    return torch.maximum(low.abs(), high.abs()).clamp(min=1e-8) / (2 ** (num_bits - 1) - 1)
