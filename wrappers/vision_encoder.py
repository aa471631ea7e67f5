"""Models that see images, of one signature: pixels in, hidden states or what a head makes of them out."""

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

    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Outputs as the model's head gives them.

        pixel_values  float (batch, channels, height, width)
        pixel_mask    int64 (batch, mask height, mask width), 1 where there is image; of any resolution, for the model
                      resamples it to its feature map
        """
        mask = {} if pixel_mask is None else {"pixel_mask": pixel_mask}
        output = self.model(pixel_values=pixel_values, **mask, **self.options)
        return tuple(output[field] for field in self.fields)
