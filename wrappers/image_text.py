"""Image-text models (CLIP, SigLIP): each tower with its projection, and both with their similarities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Tower(nn.Module):
    """The text or the image side, as the model's `get_text_features` or `get_image_features` has it.

    options  what each call passes besides, such as that positions are stretched over images of any size
    """

    def __init__(self, model: Any, side: str, options: Mapping[str, bool]) -> None:
        super().__init__()
        self.model = model
        self.side = side
        self.options = dict(options)

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected features (batch, dim), not normalised, and the tower's last hidden state (batch, length, width)."""
        output = getattr(self.model, f"get_{self.side}_features")(**inputs, **self.options)
        return output.pooler_output, output.last_hidden_state


class Pair(nn.Module):
    """Texts and images in, how much each text is like each image out. `options` are those of `Tower`."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...], options: Mapping[str, bool]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields
        self.options = dict(options)

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`input_ids` (texts, length) and `pixel_values` (images, channels, height, width) -> the named fields."""
        output = self.model(**inputs, **self.options)
        return tuple(output[field] for field in self.fields)


def resized_positions(table: torch.Tensor, shapes: torch.Tensor, length: int) -> torch.Tensor:
    """SigLIP 2's position table (side, side, dim), resized to each image's own grid: (batch, length, dim).

    shapes  int64 (batch, 2), rows and columns of patches; positions after them get the first patch's

    The same as `interpolate(mode="bilinear", antialias=True)` image by image: each target position is a mean of the
    table under a triangle as wide as a step, in rows and in columns.
    """
    side = table.shape[0]
    rows, columns = shapes[:, :1], shapes[:, 1:]
    index = torch.arange(length, device=table.device)[None]
    index = torch.where(index < rows * columns, index, 0)
    over_rows = triangle(index // columns, rows, side)
    over_columns = triangle(index % columns, columns, side)
    weights = over_rows[..., :, None] * over_columns[..., None, :]  # (batch, length, side, side)
    return weights.flatten(2).to(table.dtype) @ table.flatten(0, 1)


def triangle(position: torch.Tensor, size: torch.Tensor, side: int) -> torch.Tensor:
    """Weights of the `side` entries at positions among `size`: (batch, length), (batch, 1) -> (batch, length, side)."""
    step = side / size[..., None].float()
    centre = (position[..., None].float() + 0.5) * step
    places = torch.arange(side, device=position.device).float() + 0.5
    weights = (1 - (places - centre).abs() / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=-1, keepdim=True)
