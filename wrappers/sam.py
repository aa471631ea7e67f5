"""Segment Anything: an image seen once, and masks for any number of prompts on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class VisionEncoder(nn.Module):
    """The image side: what a click is looked up in."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The image's embeddings and those of its places, both (batch, dim, rows, columns).

        pixel_values  float (batch, channels, height, width), of the config's image size
        """
        embeddings = self.model.vision_encoder(pixel_values).last_hidden_state
        places = self.model.get_image_wide_positional_embeddings()
        return embeddings, places.expand(len(embeddings), -1, -1, -1)


class MaskDecoder(nn.Module):
    """The prompt side: points in, masks out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_points: torch.Tensor,
        input_labels: torch.Tensor,
        image_embeddings: torch.Tensor,
        image_positional_embeddings: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How good each mask is held to be, (batch, prompts, masks), and the masks as logits, at 4 times the rows and
        columns of the embeddings: (batch, prompts, masks, height, width).

        input_points  float (batch, prompts, points, 2), x and y in pixels of the model's input
        input_labels  int64 (batch, prompts, points): 1 inside, 0 outside, -1 no point, -10 padding
        """
        sparse, dense = self.model.prompt_encoder(input_points, input_labels, None, None)
        masks, scores = self.model.mask_decoder(
            image_embeddings, image_positional_embeddings, sparse, dense, multimask_output=True
        )
        return scores, masks
