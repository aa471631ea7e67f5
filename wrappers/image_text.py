"""Image-text models (CLIP, SigLIP): each tower with its projection, and both with their similarities."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Tower(nn.Module):
    """The text or the image side, as the model's `get_text_features` or `get_image_features` has it."""

    def __init__(self, model: Any, side: str) -> None:
        super().__init__()
        self.model = model
        self.side = side

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected features (batch, dim), not normalised, and the tower's last hidden state (batch, length, width)."""
        output = getattr(self.model, f"get_{self.side}_features")(**inputs)
        return output.pooler_output, output.last_hidden_state


class Pair(nn.Module):
    """Texts and images in, how much each text is like each image out."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`input_ids` (texts, length) and `pixel_values` (images, channels, height, width) -> the named fields."""
        output = self.model(**inputs)
        return tuple(output[field] for field in self.fields)
