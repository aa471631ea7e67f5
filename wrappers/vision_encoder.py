"""Image encoders of one signature: pixels in, hidden states or a classifier's logits out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class VisionEncoder(nn.Module):
    """Calls the model with fixed options and returns the named fields of its output, in order."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields
        self.options = dict(options)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Float (batch, channels, height, width); outputs as the model's head gives them."""
        output = self.model(pixel_values=pixel_values, **self.options)
        return tuple(output[field] for field in self.fields)
