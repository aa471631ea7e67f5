"""Vision towers that see a page as several square tiles: Idefics3, SmolVLM, ModernVBERT.

Every row of a batch has as many tiles as the longest one, filled up with tiles of zeros. transformers drops these
before the tower, which makes every shape depend on values. Here they go through it and are dropped or ignored after it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converter.wrappers.common import additive_mask, key_mask


class TiledVision(nn.Module):
    """Tower and connector of a model that has `vision_model` and `connector`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.connector = model.connector
        factor = getattr(model.connector, "scale_factor", None) or model.connector.pixel_shuffle_factor
        self.factor = int(factor)
        self.patch = int(model.config.vision_config.patch_size)
        # Idefics3's embeddings take a mask, and images of any size; ModernVBERT's SigLIP has one size.
        self.masked = hasattr(self.vision_model.embeddings, "num_patches_per_side")

    def forward(
        self, pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(tiles, channels, side, side) and, for masked towers, (tiles, side, side) -> (tiles, tokens, hidden)."""
        side = pixel_values.shape[-1] // self.patch
        if self.masked and pixel_attention_mask is not None:
            hidden = self.masked_tower(pixel_values, self.patch_mask(pixel_attention_mask))
        else:
            hidden = self.vision_model(pixel_values).last_hidden_state
        features: torch.Tensor = self.connector.modality_projection(self.shuffled(hidden, side))
        return features

    def patch_mask(self, pixel_attention_mask: torch.Tensor) -> torch.Tensor:
        """Which patches have a real pixel: bool (tiles, rows, columns)."""
        tiles, height, width = pixel_attention_mask.shape
        split = pixel_attention_mask.long().view(
            tiles, height // self.patch, self.patch, width // self.patch, self.patch
        )
        return split.sum(dim=(2, 4)) > 0

    def masked_tower(self, pixel_values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`Idefics3VisionTransformer` with its position buckets counted rather than looked up."""
        embeddings = self.vision_model.embeddings
        tiles, rows, columns = mask.shape
        side = embeddings.num_patches_per_side
        row = _buckets(mask[:, :, 0], rows, side)
        column = _buckets(mask[:, 0, :], columns, side)
        places = torch.where(mask, row[:, :, None] * side + column[:, None, :], 0).view(tiles, rows * columns)
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        hidden = patches + embeddings.position_embedding(places)
        additive = additive_mask(key_mask(mask.view(tiles, rows * columns)), hidden.dtype)
        for layer in self.vision_model.encoder.layers:
            hidden = layer(hidden, additive)
        normed: torch.Tensor = self.vision_model.post_layernorm(hidden)
        return normed

    def shuffled(self, hidden: torch.Tensor, side: int) -> torch.Tensor:
        """Squares of factor x factor patches become one token each, side by side in its width."""
        tiles, _, width = hidden.shape
        factor, tokens = self.factor, side // self.factor
        grid = hidden.reshape(tiles, tokens, factor, tokens, factor * width)
        return grid.transpose(2, 3).reshape(tiles, tokens * tokens, factor * factor * width)


def _buckets(real: torch.Tensor, count: int, side: int) -> torch.Tensor:
    """Where each of `count` rows or columns falls in a table of `side`, if the real ones span all of it.

    real  bool (tiles, count); the fractions and their bounds are rounded as in the original
    """
    step = 1.0 / real.sum(dim=1)  # (tiles,)
    places = torch.arange(count, dtype=torch.float32, device=real.device)[None, :] * step[:, None]
    bounds = torch.arange(1 / side, 1.0, 1 / side, device=real.device)
    return (places.clamp(max=1.0 - 1e-6)[:, :, None] >= bounds).long().sum(dim=-1)


def real_tiles(pixel_values: torch.Tensor) -> torch.Tensor:
    """Which tiles have a pixel that is not zero: (tiles, channels, side, side) -> bool (tiles,)."""
    return (pixel_values != 0).flatten(1).any(dim=1)
