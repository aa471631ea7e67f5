"""ColModernVBERT and ColIdefics3 (ColSmol) for retrieval: pages as several tiles, features put in place by position."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converter.wrappers.common import late_interaction, place_features
from converter.wrappers.tiled_vision import TiledVision


class ColModernVBert(nn.Module):
    """Text, pages or both to multi-vector embeddings, around an untouched `ColModernVBertForRetrieval`.

    Without `images` there is no vision tower in the graph, and `forward` takes the first two inputs only.
    """

    def __init__(self, model: Any, *, images: bool) -> None:
        super().__init__()
        self.image_token_id = int(model.config.vlm_config.image_token_id)
        self.text_model = model.vlm.text_model
        self.embedding_proj_layer = model.embedding_proj_layer
        self.vision = TiledVision(model.vlm) if images else None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (batch, sequence, embedding), each a unit vector, zero at padding.

        input_ids, attention_mask  int64 (batch, sequence)
        pixel_values               (batch, tiles, channels, side, side); tiles after a row's last one are zeros
        pixel_attention_mask       int64 (batch, tiles, side, side), for backbones that take one

        A row without image tokens is text, whatever its tiles; zeros will do.
        """
        embeds = self.text_model.get_input_embeddings()(input_ids)
        if self.vision is not None and pixel_values is not None:
            batch, tiles = pixel_values.shape[:2]
            mask = None if pixel_attention_mask is None else pixel_attention_mask.flatten(0, 1)
            features = self.vision(pixel_values.flatten(0, 1), mask)  # (batch * tiles, tokens, hidden)
            count, hidden = features.shape[1:]
            placeholder = input_ids == self.image_token_id
            embeds = place_features(embeds, features.view(batch, tiles * count, hidden), placeholder)
        output = self.text_model(inputs_embeds=embeds, attention_mask=attention_mask)
        return late_interaction(output.last_hidden_state, self.embedding_proj_layer, attention_mask)
