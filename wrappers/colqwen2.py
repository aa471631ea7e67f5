"""ColQwen2 for retrieval: the two towers of Qwen2-VL or Qwen2.5-VL with every image grid, batch and padding left open.

Every image keeps its own row, padded. Positions are the M-RoPE of these models, with which ColQwen2 was trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converter.wrappers.common import (
    additive_mask,
    causal_mask,
    late_interaction,
    place_features,
    token_positions,
)
from converter.wrappers.qwen_vision import VisionTower, divide, padded_places


def mrope_positions(
    image: torch.Tensor, attention_mask: torch.Tensor, image_grid_thw: torch.Tensor, merge: int
) -> torch.Tensor:
    """The positions of `Qwen2VLModel.get_rope_index`, for rows of at most one image: (3, batch, sequence).

    image           bool (batch, sequence), true at image tokens
    attention_mask  (batch, sequence); positions count real tokens only, padding gets 0
    image_grid_thw  (batch, 3), in patches

    An image's tokens share the time at which it starts and count rows and columns from there. The text after
    it goes on from the larger side of the grid.
    """
    real = attention_mask.long()
    seen = (image.long() * real).cumsum(dim=1)  # image tokens up to and with this one
    text = token_positions(attention_mask) - seen  # text tokens before this one; on image tokens, one less
    sides = divide(image_grid_thw, merge)  # in tokens
    height, width = sides[:, 1:2], sides[:, 2:3]  # (batch, 1)
    behind = text + (seen > 0).long() * torch.maximum(height, width)
    start, index, columns = text + 1, (seen - 1).clamp(min=0), width.clamp(min=1)
    inside = torch.stack([start, start + divide(index, columns), start + index % columns])
    return torch.where(image, inside, behind) * real


class ColQwen2(nn.Module):
    """Text, page images or both to multi-vector embeddings, around an untouched `ColQwen2ForRetrieval`.

    Without `images` there is no vision tower in the graph, and `forward` takes the first two inputs only.
    """

    def __init__(self, model: Any, *, images: bool) -> None:
        super().__init__()
        self.image_token_id = int(model.config.vlm_config.image_token_id)
        self.language_model = model.vlm.language_model
        self.embedding_proj_layer = model.embedding_proj_layer
        self.vision = VisionTower(model.vlm.visual) if images else None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (batch, sequence, embedding), each a unit vector, zero at padding.

        input_ids, attention_mask  int64 (batch, sequence)
        pixel_values               (batch, patches, pixels), each row one image, padded at the end
        image_grid_thw             int64 (batch, 3): 1 and the image's height and width in patches

        A row without image tokens is text, whatever its image; [1, 2, 2] and four patches of zeros will do.
        """
        embeds = self.language_model.embed_tokens(input_ids)
        positions = token_positions(attention_mask).expand(3, -1, -1)
        if self.vision is not None and pixel_values is not None and image_grid_thw is not None:
            image = input_ids == self.image_token_id
            embeds = place_features(embeds, self.features(pixel_values, image_grid_thw), image)
            positions = mrope_positions(image, attention_mask, image_grid_thw, self.vision.merge)
        output = self.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=self.masks(attention_mask, embeds.dtype),
            use_cache=False,
        )
        return late_interaction(output.last_hidden_state, self.embedding_proj_layer, attention_mask)

    def features(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """(batch, patches, pixels) and (batch, 3) -> features (batch, 1 + patches / merge ** 2, hidden).

        Each row gets one more square of padding, so that even in a batch without patches no empty tensor reaches the
        attention or a reshape, where onnxruntime would refuse it.
        """
        assert self.vision is not None
        merge = self.vision.merge
        pixel_values = nn.functional.pad(pixel_values, (0, 0, 0, merge**2))
        features: torch.Tensor = self.vision(
            pixel_values, padded_places(image_grid_thw, pixel_values.shape[1], merge)
        )
        return features

    def masks(self, attention_mask: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """One mask for each kind of layer there is, as `Qwen2VLTextModel` would make them."""
        config = self.language_model.config
        windows = {"full_attention": None, "sliding_attention": config.sliding_window}
        kinds = dict.fromkeys(["full_attention", *config.layer_types])
        return {kind: additive_mask(causal_mask(attention_mask, windows[kind]), dtype) for kind in kinds}
