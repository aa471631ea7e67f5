"""Random weights that make a wrong graph show."""

from __future__ import annotations

import math

import torch
from torch import nn


def seed_weights(model: nn.Module, seed: int) -> None:
    """Fill every parameter, in place, from `seed`: the same on every machine.

    Models initialise with a deviation of 0.02, under which attention hardly moves the residual stream and a dropped
    mask or a wrong position stays below any tolerance. Here matrices keep the variance of what they multiply
    (deviation 1/sqrt(fan in)), scales vary around 1 and biases around 0. The model is initialised already: a scale
    that was set to 0 is one that it adds to 1, as Gemma's norms do. Around 2, norm by norm, attention would look at
    one token only and rounding would grow from layer to layer.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if not parameter.is_floating_point():  # whole numbers, packed in bytes
                parameter.copy_((64 * noise).clamp(-128, 127).to(torch.int8).view(parameter.dtype))
                continue
            if parameter.dim() >= 2:
                fan_in = math.prod(parameter.shape[1:])
                parameter.copy_(noise if _is_table(model, name) else noise / math.sqrt(fan_in))
            else:
                centre = 1.0 if name.endswith("weight") and bool(parameter.any()) else 0.0
                parameter.copy_(centre + 0.1 * noise)
        for name, buffer in model.named_buffers():
            # Batch statistics as if trained: at their defaults of 0 and 1 they would test nothing.
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def _is_table(model: nn.Module, name: str) -> bool:
    owner, _, _ = name.rpartition(".")
    return isinstance(model.get_submodule(owner), nn.Embedding)
