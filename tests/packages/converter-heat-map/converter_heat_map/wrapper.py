"""The detector as it is, and what a caller asks of it: how many things of each kind there are."""

from __future__ import annotations

import torch
from torch import nn

THRESHOLD = 0.5


class CountPeaks(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, 3, height, width) -> peaks (batch, kinds, rows, columns) and counts (batch, kinds), int64."""
        peaks = self.model(pixel_values)
        return peaks, (peaks > THRESHOLD).sum(dim=(2, 3))
