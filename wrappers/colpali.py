"""ColPali for retrieval: PaliGemma's towers, image features put in place by position rather than by value."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converter.wrappers.common import additive_mask, key_mask, late_interaction, place_features


class ImageFeatures(nn.Module):
    """The vision tower and the projection into the language model's width."""

    def __init__(self, vlm: Any) -> None:
        super().__init__()
        self.vision_tower = vlm.vision_tower
        self.multi_modal_projector = vlm.multi_modal_projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, image size, image size) -> (batch, patches, hidden)."""
        features: torch.Tensor = self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)
        return features


class ColPali(nn.Module):
    """Text, page images or both to multi-vector embeddings, around an untouched `ColPaliForRetrieval`.

    Without `images` there is no vision tower in the graph, and `forward` takes the first two inputs only.
    """

    def __init__(self, model: Any, *, images: bool) -> None:
        super().__init__()
        self.image_token_id = int(model.config.vlm_config.image_token_id)
        self.language_model = model.vlm.language_model
        self.embedding_proj_layer = model.embedding_proj_layer
        self.vision = ImageFeatures(model.vlm) if images else None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (batch, sequence, embedding), each a unit vector, zero at padding.

        input_ids, attention_mask  int64 (batch, sequence)
        pixel_values               (batch, channels, image size, image size)

        A row without image tokens is text, whatever its image; zeros will do.
        """
        if self.vision is not None and pixel_values is not None:
            image = input_ids == self.image_token_id
            features = self.vision(pixel_values)
            # The image token may lie outside the vocabulary; what it embeds to is replaced in any case.
            embeds = self.language_model.embed_tokens(input_ids.masked_fill(image, 0))
            embeds = place_features(embeds, features, image)
        else:
            embeds = self.language_model.embed_tokens(input_ids)
        # The processor marks every token as prefix, so all attend to all; PaliGemma counts positions from 1.
        positions = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
        output = self.language_model(
            inputs_embeds=embeds,
            position_ids=positions[None, :],
            attention_mask=additive_mask(key_mask(attention_mask), embeds.dtype),
            use_cache=False,
        )
        return late_interaction(output.last_hidden_state, self.embedding_proj_layer, attention_mask)
