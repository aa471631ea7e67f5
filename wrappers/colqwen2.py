"""ColQwen2 for retrieval: Qwen2-VL's two towers with every image grid, batch and padding left open.

transformers runs the vision tower on all patches of a batch in one row, cut at each image. Here every image
keeps its own row, padded, so that grids stay tensors: a patch's place follows from its index and the width of
its grid, and one mask keeps padding out of the attention. Positions are Qwen2-VL's M-RoPE, with which
ColQwen2 was trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from converter.wrappers.common import (
    additive_mask,
    causal_mask,
    key_mask,
    late_interaction,
    place_features,
    token_positions,
)


def divide(number: torch.Tensor, divisor: torch.Tensor | int) -> torch.Tensor:
    """Whole quotient of numbers that are never negative: one node, where flooring would take five."""
    return torch.div(number, divisor, rounding_mode="trunc")


class VisionBlock(nn.Module):
    """One block of the vision tower on padded rows, made of the original block's own parts.

    All it computes lies in its own scope. One tensor comes from its predecessor; all blocks share the rest.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """(batch, patches, dim), tables (batch, patches, head_dim), mask (batch, 1, patches, patches)."""
        attention = self.block.attn
        batch, patches, dim = hidden.shape
        fused = attention.qkv(self.block.norm1(hidden))
        heads = fused.view(batch, patches, 3, attention.num_heads, attention.head_dim)
        query, key, value = heads.unbind(2)  # each (batch, patches, heads, head_dim)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        mixed = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            scale=attention.scaling,
        )
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(batch, patches, dim))
        result: torch.Tensor = hidden + self.block.mlp(self.block.norm2(hidden))
        return result


class VisionTower(nn.Module):
    """The vision tower, one padded row per image."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.merge = int(visual.spatial_merge_size)
        self.width = int(visual.config.embed_dim)
        self.head_dim = self.width // int(visual.config.num_heads)
        self.features = int(visual.config.hidden_size)
        self.patch_embed = visual.patch_embed
        self.rotary_pos_emb = visual.rotary_pos_emb
        self.blocks = nn.ModuleList(VisionBlock(block) for block in visual.blocks)
        self.merger = visual.merger

    def forward(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """(batch, patches, pixels) and (batch, 3) -> features (batch, 1 + patches / merge ** 2, hidden).

        Each row gets one square of padding more. So a batch of no patches at all is nothing special: no empty
        tensor reaches the attention or a reshape, where onnxruntime would refuse it.
        """
        pixel_values = nn.functional.pad(pixel_values, (0, 0, 0, self.merge**2))
        batch, patches, pixels = pixel_values.shape
        hidden = self.patch_embed(pixel_values.reshape(batch * patches, pixels))  # (batch * patches, dim)
        places = self.patch_places(image_grid_thw, patches).reshape(batch * patches, 2)
        tables = self.rotary_pos_emb(hidden, places)  # cos and sin, each (batch * patches, head_dim)
        cos, sin = (table.view(batch, patches, self.head_dim) for table in tables)
        hidden = hidden.view(batch, patches, self.width)
        # An image of no patches still sees one, of padding, so that its softmax is a number.
        count = (image_grid_thw[:, 1] * image_grid_thw[:, 2]).clamp(min=1)
        real = torch.arange(patches, device=count.device)[None, :] < count[:, None]
        mask = additive_mask(key_mask(real), hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, cos, sin, mask)
        merged = self.merger(hidden)  # (batch * patches / merge ** 2, hidden)
        features: torch.Tensor = merged.view(batch, patches // self.merge**2, self.features)
        return features

    def patch_places(self, image_grid_thw: torch.Tensor, patches: int) -> torch.Tensor:
        """Row and column of each patch in its image: (batch, patches, 2).

        Patches come in squares of merge x merge, which the merger joins; squares run along rows of the grid.
        """
        index = torch.arange(patches, device=image_grid_thw.device)[None, :]
        square, inside = divide(index, self.merge**2), index % self.merge**2
        width = divide(image_grid_thw[:, 2:], self.merge).clamp(min=1)  # (batch, 1), in squares
        row = divide(square, width) * self.merge + divide(inside, self.merge)
        column = square % width * self.merge + inside % self.merge
        return torch.stack([row, column], dim=-1)


def mrope_positions(
    image: torch.Tensor, attention_mask: torch.Tensor, image_grid_thw: torch.Tensor, merge: int
) -> torch.Tensor:
    """The positions of `Qwen2VLModel.get_rope_index`, for rows of at most one image: (3, batch, sequence).

    image           bool (batch, sequence), true at image tokens
    attention_mask  (batch, sequence); positions count real tokens only, padding gets 0
    image_grid_thw  (batch, 3), in patches

    An image's tokens share the time at which it starts and count rows and columns from there. The text behind
    goes on after the larger side of the grid.
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
            embeds = place_features(embeds, self.vision(pixel_values, image_grid_thw), image)
            positions = mrope_positions(image, attention_mask, image_grid_thw, self.vision.merge)
        output = self.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=self.masks(attention_mask, embeds.dtype),
            use_cache=False,
        )
        return late_interaction(output.last_hidden_state, self.embedding_proj_layer, attention_mask)

    def masks(self, attention_mask: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """One mask for each kind of layer there is, as `Qwen2VLTextModel` would make them."""
        config = self.language_model.config
        windows = {"full_attention": None, "sliding_attention": config.sliding_window}
        kinds = dict.fromkeys(["full_attention", *config.layer_types])
        return {kind: additive_mask(causal_mask(attention_mask, windows[kind]), dtype) for kind in kinds}
